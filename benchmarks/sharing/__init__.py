"""The benchmark of sharing: who gets how much, and who waits how long, in virtual time.

    workloads, neighbours, fairness, faults     who asks for what, and what is looked at
            │
         replay  ──arrivals, tokens, ends──►  a scheduler (schedulers.py, or the real scripts: ledger_scheduler.py)
            │    ◄──────────orders──────────
         engine  batches, memory, step times of a real one
            │
         metrics ──► suites (targets, bounds) ──► report, pictures

The scheduler under test is what ships: the Lua scripts in a Redis, told the time. Only the engine and the clients are
simulated. `published.py` is the check of the simulation itself: VTC's own engine, whose results are public.
"""
