"""Backup: everything that cannot be had again, in one file; and a new box from it.

A backup is a tar, so that a person with nothing but a shell can look into it: `database.dump` (what pg_dump writes),
`archive/…` (months that have left the tables for files), `manifest.json` (what is in it, how many rows, and the SHA-256
of each part) and at last the sum of the manifest itself. The end is written last, so a file that was cut off has none.

What is dumped is one moment. A transaction counts the rows of all tables and lends its snapshot to pg_dump, so counts
and dump agree whoever writes meanwhile. Upkeep stands still as long as that takes, for it moves rows from tables into
files: months would be missing, or there twice. Migrations stand still for the same reason; requests do not.

A restored box is complete or it is not there. The file is read to its end, and every sum compared, before anything is
written. An embedded Postgres is filled in a folder of its own, which gets its name at the end. In a Postgres that was
given, pg_restore works in one transaction, and the revision, without which no server starts on a database, is set by
the last one, which also makes the policies of the owner (who may be called otherwise than in the old box), counts all
rows again, and looks whether row-level security holds.

What lets somebody in without a password stays out: login sessions may have been ended since, and links for new people
have been used. People log in once more. Keys stay, since programs cannot log in.

    manifest.py   what is in a backup          tape.py       reads and writes the tar
    database.py   what both ask of Postgres    programs.py   runs pg_dump and pg_restore
    making.py     makes a backup               restoring.py  restores one
    folder.py     where a restored box grows
"""
