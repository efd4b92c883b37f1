"""Upkeep: what must be done now and then, so that what is kept does not grow without bound.

Tables that grow are divided by month (parted.py). Each night's work is a few jobs: make the partitions of the next
months (partitions.py); write months that have become old into files, and drop them (archiving.py); take out of these
files what its people have removed (forgetting.py). Jobs work as the tables' owner on a connection of their own
(owner.py), in one replica at a time, and each of their steps either happens or does not, so that a job that is killed
goes on where it was. No request is ever answered by that connection: what a person opens again comes back by the app's
own, under the same rules as everything else (restoring.py).
"""
