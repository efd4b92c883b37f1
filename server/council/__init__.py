"""One question, several models, one answer.

A council is a model name: whoever asks `council` instead of a model is answered by several members at once, and by
one of them, the chair, who makes one answer of theirs. Each member is an ordinary request of the asker's flow, with an
id, a lease and a usage row of its own; all but the leader may be stopped when somebody else needs the slot.

    name and options ─► seats (allocator) ─► Table ◄── strategy
       names.py                              │  ▲
                                             ▼  │ parts
                               events     Ask: one request to one model
                             (events.py)     (calls.py)

The way of a question. `names.py` reads what the asker wants. The allocator says who sits: the leader first, the others
as far as the box has room. The `Table` (table.py) then is all that a strategy sees: it asks members, tells every event
in the order in which it happens, keeps the deadlines, and lets exactly one conclusion through. A strategy
(strategies/) decides who is asked what and when it is enough:

    solo       one model; the way back when there is no room
    self-k     samples of one model, which an engine computes together
    duo        two models; a third if they disagree
    council-k  two models, then all that there is room for; the chair joins their answers
    vote       short answers that can be counted; asked for until the majority would hold
    judge      all answer, one picks the best
    race       the first acceptable answer; the others are stopped
    karpathy   all answer, rank each other without names, and the chair writes
    debate     all answer, read each other, and answer again

Rules that hold for all of them:

- The leader begins alone, so that its first token is as early as without a council. The others begin after it.
- Two first, more only where these disagree: most of the gain is the second opinion.
- Agreement costs nothing more: the leader's answer is the answer. What can be counted is compared by value
  (extraction.py), what cannot by a cheap measure of shared words (agreement.py), which errs towards disagreement.
- Whoever reads answers reads them without names and in a shuffled order, as quotations (prompts.py). Nobody votes for
  its own.
- A member is waited for 1.5 times as long as the leader took, at least 20 s. Who fails, is stopped or comes too late is
  named with the reason; the others go on. If nobody answers, the error names each (calls.py, CouncilFailed).
- A minority stays visible: the verdict lists every opinion and who held it.

Nothing in here knows HTTP, Redis or engines. Time, chance and the way to a model are arguments.
"""
