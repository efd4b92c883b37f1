"""Several servers behind nginx and HAProxy, under load: what a restart, a kill and a server that hangs cost.

    python -m benchmarks.replicas [--seconds 8] [--clients 24]

Three servers, a simulated engine, Postgres, Redis and both proxies run as processes of this one; the proxies with the
files that users take (docs/proxies). Clients ask without a pause, two of three answers as streams, half of the clients
through each proxy, and their library does not ask again by itself.

    plain     one server and three, directly and through each proxy, in turns
    restart   each server in turn is asked to end (SIGTERM) and started anew
    kill      one server is killed (SIGKILL) and started anew
    hang      one server is stopped (SIGSTOP) for 3 s, then for 8 s (a lease lasts 5 s), and goes on

An answer fails after it has begun if its client had seen a part of it, and before otherwise. In the end the check of
`wirthforge doctor ledger` is asked. Exit status 1 if it finds anything, or if a restart has failed a request.
"""
