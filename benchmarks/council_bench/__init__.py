"""What a council costs and brings, measured on a running server: `wirthforge bench council`.

Each question is put to every model alone, to samples of the leader (`council:self:N`) and to several models
(`council:N`), one after the other through the served API, as any client would. The ways take turns: every second
question goes through them backwards, and every third begins with another one, so that a warm cache or a slow moment of
the machine hits all of them. All figures beside the leader alone are ratios or differences of the same question, whose
means are told with an interval from drawing the questions again (bootstrap); shares of right answers have Wilson's.

    questions.py  what is asked, and when an answer is right
    ways.py       who is asked: a model alone, samples, several models
    asking.py     one request, timed
    run.py        all questions, all ways
    figures.py    from answers to figures
    report.py     as people read it

Councils in simulated days are another matter: benchmarks/councils.
"""
