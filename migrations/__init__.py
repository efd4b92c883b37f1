"""The schema's history: `env.py` runs what lies in `versions/`."""
