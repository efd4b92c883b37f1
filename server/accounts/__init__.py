"""Who is asking: people, their passwords and login sessions, and the keys of their programs."""
