"""What a laptop lacks: Postgres, Redis and llama.cpp, started from wheels and gone when the server is.

`supervisor.py` keeps them running, `leash.py` makes sure that none outlives the server, `lock.py` that a data folder
has one server. URLs in the settings replace any of them.
"""
