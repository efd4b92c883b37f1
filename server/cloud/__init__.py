"""Somebody else's models, for a request that would wait too long here, where every rule allows it (docs/cloud.md)."""
