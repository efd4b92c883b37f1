"""Upkeep: partitions, archive, and the jobs that look after both."""
