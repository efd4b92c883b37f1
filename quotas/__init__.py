"""Who may use how much of the box: the rules of sharing, without the machinery around them.

Theory of operation. Each person's requests are one flow, whatever keys they come with. A flow has a counter, which
grows by what its requests cost, divided by its weight: a prompt when it is dispatched, an answer while it streams.
Whenever an engine can take another request, the flow with the smallest counter is next. So people who want more than
there is get service in proportion to their weights, whatever the size of their requests, and who asks now and then is
always next.

    enqueue ──► queue ──► dispatch ──► running ──► finish ──► settled ──► (usage in Postgres)
                  │                       │  ▲
                cancel                    │  └─ charge: counts tokens, renews the lease
                                          ├──── revoke: somebody light waits, and this one may be stopped
                                          └──── reap: the deadline passed, nobody renewed it

A fair queue before an engine that takes everything would be no queue at all, so an engine is given only what it works
on at once: its window (window.py). A request that may run holds a lease, which is a slot with a deadline. Whoever holds
it renews it while tokens flow, so a replica that dies loses its leases by itself, and any replica that is alive reaps
them. What somebody may use in a minute, a day, a month is reserved when a request enters and settled at its end
(policy.py says how much, lua/shared/budgets.lua counts).

Every arrow is one Lua script (`lua/`), run by Redis one at a time, so that any number of server replicas see one
truth: Redis is the only brain, and its `TIME` the only clock. Python resolves what an admin wrote, and encodes.
`ledger.py` has a method per script and is the only module here that talks to Redis.

A request that held a lease leaves an event in the settled stream, whatever ended it: its replica writes it with
`finish`, or, when the replica is gone, the reaper writes it from what was charged. Should both happen, the event of the
replica counts, since it saw the end; after a lost reply the same event may be there twice. The request's id makes them
one row. A request that never held a lease leaves nothing.
"""
