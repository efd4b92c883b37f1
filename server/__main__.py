"""`python -m server` is the `wirthforge` command."""

from server.cli import main

main()
