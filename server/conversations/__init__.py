"""Conversations: what people wrote and were answered, one row per message, and answers that outlive their connection.

Theory of operation. A conversation is a tree of messages: a message names the one it follows, siblings are branches. A
question that is edited is a sibling of the old one, an answer that is made anew a sibling of the old answer; nothing is
ever overwritten. The person looks at one branch, by its last message (`leaf_id`).

An answer is a task of the server (answers.py), asked in the same way as any request to /v1/chat/completions. Its bytes
are kept in memory until it has ended (running.py), so that whoever comes, however late, reads them from the beginning.
Text is taken out of them at checkpoints only (transcript.py): every CHECKPOINT_MS the row gets what there is
(recorder.py), so that a server that is killed loses no more than that, and a message is not written anew for every
token. A row's `updated_at` is its heartbeat, by Postgres' clock, which all replicas share: a row that says `streaming`
and was not touched for STALE_S is that of a server that died.

Ids are UUIDv7: what follows has the larger id (ids.py), so that the messages of a conversation are those after its own
id, and Postgres need not look into the partitions of the months before.

Every transaction names the person whose rows it is about; row-level security does the rest.
"""
