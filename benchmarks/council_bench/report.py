"""The figures as people read them."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.council_bench.figures import Alone, Interval, Slowdown, WayFigures
from benchmarks.council_bench.run import Measured

NONE = "-"


def report(found: Measured) -> str:
    """All of it, as plain text."""
    sections = [
        ["alone, medians", *_table(ALONE, [_alone(each) for each in found.alone])],
        ["right answers", *_table(RIGHT, [_right(each) for each in found.ways])],
        [f"beside {found.models[0]} alone (1 is the same)", *_table(COST, [_cost(each) for each in found.ways[1:]])],
    ]
    if found.slowdowns:
        rows = [_slowdown(each) for each in found.slowdowns]
        sections.append(["contention: a member's rate in the council beside alone", *_table(RATE, rows)])
    sections.append(["notes", *(f"  {line}" for line in _notes(found))])
    return "\n\n".join("\n".join(lines) for lines in sections)


ALONE = ("model", "first ms", "answer ms", "whole ms", "asked", "answered", "tokens/s")
RIGHT = ("way", "seats", "right", "95 %", "beside leader", "95 %", "gained lost", "a member", "agreement", "failed")
COST = ("way", "first of anything", "first of the answer", "whole", "tokens asked", "tokens answered")
RATE = ("way", "member", "left of its rate", "answers")


def _alone(each: Alone) -> Sequence[str]:
    numbers = (each.first_ms, each.answer_ms, each.total_ms, each.asked, each.answered, each.tokens_per_s)
    return each.model, *(NONE if number is None else f"{number:.0f}" for number in numbers)


def _right(each: WayFigures) -> Sequence[str]:
    gain = each.gain
    return (
        each.name,
        NONE if each.size is None else f"{each.size:.1f}",
        f"{each.right.value:.0%}",
        f"[{each.right.low:.0%} {each.right.high:.0%}]",
        NONE if gain is None else f"{100 * gain.value:+.0f}",
        NONE if gain is None else f"[{100 * gain.low:+.0f} {100 * gain.high:+.0f}]",
        NONE if gain is None else f"+{each.gained} -{each.lost}",
        NONE if each.any_right is None else f"{each.any_right.value:.0%}",
        NONE if each.agreement is None else f"{each.agreement:.2f}",
        str(each.failed),
    )


def _cost(each: WayFigures) -> Sequence[str]:
    return each.name, *(_times(ratio) for ratio in (each.first, each.answer, each.total, each.asked, each.answered))


def _slowdown(each: Slowdown) -> Sequence[str]:
    return each.way, each.model, _times(each.rate), str(each.rate.count)


def _times(ratio: Interval | None) -> str:
    return NONE if ratio is None else f"{ratio.value:.2f} [{ratio.low:.2f} {ratio.high:.2f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines with columns as wide as they must be, the first to the left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        first, *others = (cell.ljust(width) if not i else cell.rjust(width) for i, (cell, width) in _pairs(row, widths))
        yield "  " + "  ".join((first, *others)).rstrip()


def _pairs(row: Sequence[str], widths: Sequence[int]) -> enumerate[tuple[str, int]]:
    return enumerate(zip(row, widths, strict=True))


def _notes(found: Measured) -> Iterator[str]:
    yield f"WIRTHFORGE {found.version}, models {', '.join(found.models)}, the first leads."
    yield from found.how
    yield (
        '"a member": any member that answered was right, whatever the council made of it. "seats": members for which '
        'there was room. "agreement": the largest opinion\'s share.'
    )
    for each in found.ways:
        if each.methods:
            yield (
                f"{each.name}: led by {_counted(each.leaders)}; strategy {_counted(each.strategies)}; "
                f"ended by {_counted(each.methods)}."
            )
        for binding, bound in each.bounds.items():
            yield f"{each.name}: {bound.count} times smaller ({binding}), as here: {bound.example}"
        for reason, count in each.failures.items():
            yield f"{each.name}: {count} times no answer. {reason}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
