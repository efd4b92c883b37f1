"""The database: roles, row-level security, partitions."""
