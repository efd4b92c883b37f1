"""Postgres: the session, and one file per table in `models/`. Migrations live in `migrations/`."""
