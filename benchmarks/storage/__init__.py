"""What a year of four busy people takes, and how fast their conversations open when there are many.

`python -m benchmarks.storage` fills a real Postgres with rows of the sizes that use makes: how long questions and
answers are says the trace of `benchmarks/data`, what they say is chained from the words of this project's own texts, so
that it compresses about as text does. Then it asks the server's own parts: sizes of tables, the list and a conversation
at 1 k, 100 k and 1 M messages of one person, the archive there and back. docs/storage-figures.md has the figures.
"""
