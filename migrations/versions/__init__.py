"""Alembic's migrations, oldest first; `script.py.mako` is the template of a new one."""
