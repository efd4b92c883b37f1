"""`wirthforge models prune`: what is in the models folder, what goes of it and what stays, and why."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import click
from msgspec.structs import replace

from server.embedded.model_cache import Model, alone_in, carry_out, forget_gone, look, plan
from server.embedded.model_room import GB, day
from server.errors import StartError

SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]i?B|B|)", re.IGNORECASE)
UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
NAME_WIDTH_MAX = 60
STAYS = "stays"
LEFT = "left by a download that was killed"


class Size(click.ParamType[int]):
    """A number of bytes, as people write it: 20GB, 500 MB, 1.5GiB, 0."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes."""
        if isinstance(value, int):
            return value
        found = SIZE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no size: write 20GB, 500MB or a number of bytes.", param, ctx)
        return int(float(found["number"]) * UNITS[found["unit"].lower()])


def prune(folder: Path, to_bytes: int, named: Collection[Path], *, dry_run: bool, also_theirs: bool) -> None:
    """Remove what may go until `to_bytes` are left, and print what was there.

    Args:
        folder: the models folder; without one there is nothing to do.
        named: files that the settings name, which stay.

    Raises:
        StartError: the folder cannot be read, or a model could not be removed; the others are gone then.
    """
    if not folder.is_dir():
        click.echo(f"There is no folder {folder}: nothing to remove.")
        return
    with alone_in(folder):
        found = look(folder, named, also_theirs=also_theirs)
        chosen = plan(found, to_bytes)
        gone, kept = (list(chosen.going), []) if dry_run else carry_out(folder, chosen)
        if not dry_run:
            forget_gone(folder)
    staying = [*chosen.staying, *(replace(model, stays=why) for model, why in kept)]
    click.echo(_table(gone, staying, to_bytes, is_done=not dry_run))
    failed = [model for model, why in kept if not why.startswith("in use")]
    if failed:
        raise StartError(f"Not removed: {', '.join(model.name for model in failed)}. The table says why.")


def _table(gone: Sequence[Model], staying: Sequence[Model], to_bytes: int, *, is_done: bool) -> str:
    goes = "gone" if is_done else "goes"
    rows = [(goes, model, LEFT if model.is_leftover else "the longest unused") for model in gone]
    rows += [(STAYS, model, model.stays or "within the limit") for model in sorted(staying, key=lambda one: one.used)]
    if not rows:
        return "There are no models."
    width = min(max(len(model.name) for _, model, _ in rows), NAME_WIDTH_MAX)
    lines = [f"{'':<5} {'model':<{width}} {'GB':>6} {'last used (UTC)':<16}  why"]
    lines += [
        f"{what:<5} {model.name:<{width}} {model.size_bytes / GB:>6.1f} {day(model.used):<16}  {why}"
        for what, model, why in rows
    ]
    freed = sum(model.size_bytes for model in gone)
    left = sum(model.size_bytes for model in staying if model.counts)
    lines += [
        "",
        f"{freed / GB:.1f} GB {goes}; of what counts, {left / GB:.1f} GB are left of {to_bytes / GB:.1f} GB allowed.",
    ]
    if left > to_bytes:
        lines.append(f"{(left - to_bytes) / GB:.1f} GB more should go and may not.")
    return "\n".join(lines)
