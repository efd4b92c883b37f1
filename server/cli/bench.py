"""`wirthforge bench …`"""

import click


@click.group()
def bench() -> None:
    """Benchmarks: sharing."""


@bench.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sharing(arguments: tuple[str, ...]) -> None:
    """The rules of sharing against other policies, on a simulated engine. `--help` lists its flags."""
    from benchmarks.sharing.__main__ import main  # noqa: PLC0415 (only here: it starts a Redis of its own)

    raise SystemExit(main(arguments))
