"""Traces: what one request did, and how long each part of it took. Off unless `traces_url` names a collector.

    POST /v1/chat/completions          server     api/traces.py
    ├─ queue                           internal   chat/pipeline.py
    ├─ chat llama-3                    client     chat/traces.py; the engine gets its `traceparent`
    └─ invoke_workflow council         internal   council/service.py
       └─ invoke_agent llama-3         internal   council/asking.py, one for each call of a member
          ├─ queue
          └─ chat llama-3

A span hangs on the one that is current, which is a context variable like the request id of the log: tasks that are
begun for a request have it as well. Where traces are off, and outside of requests, that is `NOTHING`, whose children
are itself. So no part is handed a tracer, what is off costs a look at a variable, and OpenTelemetry is not loaded: only
`otlp.py` knows it, and only `api/traces.py` asks for that.

Contents never. What a span may hold is a closed list (names.py): names that an admin gave (engines, models that are
served, providers), words from our own lists, and counts. Nothing is copied out of a request: no text, no header but the
ids in `traceparent`, no path but the route's pattern, no name of a model that nobody serves, no person, no address, and
of an error its code alone. `tracestate` and `baggage` are dropped, since callers write what they like into them.

Every span ends once, whoever ends it first: with the answer, at a fault, or when the request's exit stack is unwound.
That a client left, or the server stopped what was no longer needed, is no error.
"""
