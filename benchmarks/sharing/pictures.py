"""Pictures, as SVG: lines over time, and distributions."""

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 36, 44
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
TICKS = 5

Points = Sequence[tuple[float, float]]


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _grid(x_max: float, y_max: float, x_words: str, y_words: str) -> list[str]:
    parts = []
    for tick in range(TICKS + 1):
        x = LEFT + (WIDTH - LEFT - RIGHT) * tick / TICKS
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * tick / TICKS
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#8884"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 16, f"{x_max * tick / TICKS:g}"))
        parts.append(_text(LEFT - 6, y + 4, f"{y_max * tick / TICKS:g}", "end"))
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 8, x_words))
    parts.append(_text(LEFT, TOP - 20, y_words, "start"))
    return parts


def lines(title: str, x_words: str, y_words: str, curves: Mapping[str, Points], *, named: int = len(COLOURS)) -> str:
    """A picture of curves; the first `named` have a colour and a name, the others are thin and grey."""
    x_max = max(x for points in curves.values() for x, _ in points)
    y_max = nice(max(y for points in curves.values() for _, y in points))
    parts = _grid(x_max, y_max, x_words, y_words)
    for number, (name, points) in reversed(list(enumerate(curves.items()))):
        path = " ".join(
            f"{LEFT + (WIDTH - LEFT - RIGHT) * x / x_max:.1f},"
            f"{HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(y / y_max, 1):.1f}"
            for x, y in points
        )
        colour = COLOURS[number % len(COLOURS)] if number < named else "#888"
        width = 2 if number < named else 0.7
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        if number < named:
            x = WIDTH - RIGHT - 8
            parts.append(f'<g fill="{colour}">{_text(x, TOP + 14 + 16 * number, name, "end")}</g>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12"'
        f' font-family="sans-serif">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n'
        f'<g font-weight="bold">{_text(WIDTH / 2, 16, title)}</g>\n{body}\n</svg>\n'
    )


def nice(value: float) -> float:
    """A round number that is not smaller."""
    step = 10.0 ** (len(str(int(value))) - 1)
    return step * -(-value // step) if value >= 1 else 1.0


def distribution(values: Sequence[float]) -> list[tuple[float, float]]:
    """Share of the values (in percent) against value, as steps are few."""
    ordered = sorted(values)
    return [(100 * rank / len(ordered), value) for rank, value in enumerate(ordered, 1)]
