"""Who may use how much of the box: the rules of sharing, without the machinery around them.

Theory of operation. Requests for an engine wait in its queue. An engine takes as many at a time as its window allows; a
request that may run holds a lease, which is a slot with a deadline. Whoever holds it renews it while tokens flow, so a
replica that dies loses its leases by itself, and any replica that is alive reaps them.

    enqueue ──► queue ──► dispatch ──► running ──► finish ──► settled ──► (usage in Postgres)
                  │                       │  ▲
                cancel                    │  └─ charge: counts tokens, renews the lease
                                          └──── reap: the deadline passed, nobody renewed it

Every arrow is one Lua script (`lua/`), run by Redis one at a time, so that any number of server replicas see one truth:
Redis is the only brain, and its `TIME` the only clock. `ledger.py` has a method per script and is the only module here
that talks to Redis.

A request that held a lease leaves an event in the settled stream, whatever ended it: its replica writes it with
`finish`, or, when the replica is gone, the reaper writes it from what was charged. Should both happen, the event of the
replica counts, since it saw the end; after a lost reply the same event may be there twice. The request's id makes them
one row. A request that never held a lease leaves nothing.

Today the order is first come, first served, and the window counts slots.
"""
