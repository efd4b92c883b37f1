"""Engines: the running inference servers behind this one, each spoken to through an adapter (`protocol.py`)."""
