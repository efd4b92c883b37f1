"""The edge for the browser: accounts, usage, administration, and the client's files."""
