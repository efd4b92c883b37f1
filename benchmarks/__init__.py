"""Benchmarks that anyone can run; docs/benchmarks.md holds what they printed, with date and machine."""
