"""WIRTHFORGE: one GPU box, a few people, nobody waits for anybody else.

Start reading in `app.py`, the only place where parts are chosen, or follow one request from `api/openai.py` downwards
(docs/architecture.md walks it). Imports go one way; `pyproject.toml` holds the contract.
"""

VERSION = "0.1.0"
