"""The simulation of councils: how large they are over a day of changing load, and whom they hurt.

    day        who asks how often, and when
     │
    play ──questions──► the real scene, allocator and steadiness (box.py feeds them)
     │   ──requests───► the real ledger (benchmarks/sharing: scripts in a Redis, told the time; simulated engines)
     │
    figures ──► table, pictures, docs/council-figures.md

Engines of the box slow each other by the saturation law; answers on one engine share its steps. Nothing of server/ is
replaced but what reads hardware, engines and Postgres.
"""
