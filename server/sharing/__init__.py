"""Sharing the box: the gate that every request passes on its way to an engine."""
