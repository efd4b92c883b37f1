"""How large a council may be now: pure decisions, without I/O, clock or dice.

Theory of operation. A council asks several models, or one model several times, and makes one answer of theirs. Each
answer more is worth something and costs something, and what it costs depends on who else is there. Decided is who
answers: the members, which of them leads (the others begin after its first token), who chairs, and why it is not one
more. The formulas are those proposed in ../shared/reference/council.md section 2.2, which is also where the
measurements behind them are listed.

    what a set is worth    Q     measured gains of mixed and of self councils, moved to the best member's quality;
                                 for answers that can be counted, the majority model of Chen et al. (quality.py)
    what models leave      eff   of each one's own rate while k engines of a box answer: a prior, and what was measured
    each other                   here (contention.py). Engines count, not users: requests of one engine share its steps
    time                   T     the slowest member at the rate that is left to it, then the chair, who reads all
                                 answers and writes one (estimate.py)
    price                  P     w_t ln(T / T_solo) + w_l rho (E / E_solo - 1); E is the time that engines are kept
                                 busy, rho the part of the box that is taken (w_t = 0.03, w_l = 0.10: not tuned yet)

Wanted is the roster with the greatest J = Q - P among those that hurt nobody: the leader's first token comes in time,
every stream keeps its 15 tokens a second, memory suffices, nobody waits for a slot that a member takes. But the size of
the plain argmax may grow when the load does: where prompts get longer a second opinion is cheap in comparison, and
where the best pair becomes impossible a trio may be next best. People would see councils grow on a box that gets
fuller. So the size comes first, by construction monotone, and J chooses only among rosters of that size: allocate.py
has the argument, limits.py and worth.py its two halves.

`steadiness.py` keeps sizes from flapping over time, `ladder.py` lists what is tried before anybody is refused,
`kinds.py` tells what kind of question it is, `forecast.py` what will be asked soon. Nothing here is decided by a clock:
time, load and what was learned are arguments.
"""
