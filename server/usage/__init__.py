"""Usage: what was settled in Redis becomes rows in Postgres, once each."""
