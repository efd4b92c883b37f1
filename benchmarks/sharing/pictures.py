"""Pictures of curves and of points, as SVG."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 44, 44
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
TICKS = 5

Points = Sequence[tuple[float, float]]


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def nice(value: float) -> float:
    """A round number that is not smaller."""
    step = 10.0 ** floor(log10(value))
    return step * ceil(value / step)


def _steps(values: Sequence[float], *, is_log: bool) -> list[float]:
    """Where the lines of the grid are."""
    if is_log:
        powers = range(floor(log10(min(values))), ceil(log10(max(values))) + 1)
        return [10.0**power for power in powers]
    return [nice(max(values)) * tick / TICKS for tick in range(TICKS + 1)]


def lines(title: str, x_words: str, y_words: str, curves: Mapping[str, Points], *, is_log: bool = False) -> str:
    """A picture of some named curves; `is_log`: the y axis counts in powers of ten."""
    x_max = nice(max(x for points in curves.values() for x, _ in points))
    steps = _steps([y for points in curves.values() for _, y in points], is_log=is_log)

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * x / x_max

    def up(y: float) -> float:
        low, high = steps[0], steps[-1]
        share = log10(y / low) / log10(high / low) if is_log else y / high
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [f'<g font-weight="bold">{_text(WIDTH / 2, 16, title)}</g>', _text(LEFT, TOP - 12, y_words, "start")]
    for step in steps:
        parts.append(f'<path d="M{LEFT} {up(step):.1f}H{WIDTH - RIGHT}" stroke="#8884"/>')
        parts.append(_text(LEFT - 6, up(step) + 4, f"{step:g}", "end"))
    ticks = [x_max * tick / TICKS for tick in range(TICKS + 1)]
    parts += [_text(across(tick), HEIGHT - BOTTOM + 16, f"{tick:g}") for tick in ticks]
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 8, x_words))
    for number, (name, points) in enumerate(curves.items()):
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[number]}" stroke-width="2"/>')
        x = WIDTH - RIGHT - 160 * (len(curves) - number - 1)
        parts.append(f'<g fill="{COLOURS[number]}">{_text(x, TOP - 12, name, "end")}</g>')
    return _picture(title, parts)


def points(
    title: str,
    x_words: str,
    y_words: str,
    groups: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    y_min: float,
) -> str:
    """A picture of some groups of named points; the x axis counts in powers of ten, the y axis begins at `y_min`."""
    places = [place for group in groups.values() for place in group.values()]
    steps = _steps([x for x, _ in places], is_log=True)
    y_max = max(1.0, *(y for _, y in places))

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * log10(x / steps[0]) / log10(steps[-1] / steps[0])

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y_min) / (y_max - y_min)

    parts = [f'<g font-weight="bold">{_text(WIDTH / 2, 16, title)}</g>', _text(LEFT, TOP - 12, y_words, "start")]
    for tick in range(TICKS + 1):
        y = y_min + (y_max - y_min) * tick / TICKS
        parts.append(f'<path d="M{LEFT} {up(y):.1f}H{WIDTH - RIGHT}" stroke="#8884"/>')
        parts.append(_text(LEFT - 6, up(y) + 4, f"{y:.2f}", "end"))
    parts += [_text(across(step), HEIGHT - BOTTOM + 16, f"{step:g}") for step in steps]
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 8, x_words))
    for number, (name, group) in enumerate(groups.items()):
        parts.append(f'<g fill="{COLOURS[number]}">')
        # Points that lie upon each other have one label; labels of the groups lie above and below, towards the middle.
        labels: dict[tuple[int, int], list[str]] = defaultdict(list)
        for words, (x, y) in group.items():
            labels[round(across(x)), round(up(y))].append(words)
        for (x_at, y_at), several in labels.items():
            parts.append(f'<circle cx="{x_at}" cy="{y_at}" r="4"/>')
            anchor = "end" if x_at > WIDTH / 2 else "start"
            parts.append(_text(x_at, y_at + (18 if number else -8), " = ".join(several), anchor))
        parts.append(f"{_text(WIDTH - RIGHT - 160 * (len(groups) - number - 1), TOP - 12, name, 'end')}</g>")
    return _picture(title, parts)


def _picture(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12"'
        f' font-family="sans-serif">\n<title>{escape(title)}</title>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def distribution(values: Sequence[float]) -> list[tuple[float, float]]:
    """Which value (the second) how many percent of all (the first) do not exceed."""
    ordered = sorted(values)
    return [(100 * rank / len(ordered), value) for rank, value in enumerate(ordered, 1)]
