"""Progress, for people who watch a run."""

import sys


def show(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
