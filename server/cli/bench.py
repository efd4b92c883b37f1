"""`wirthforge bench …`"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp
import click
import msgspec

from benchmarks.council_bench.asking import Server
from benchmarks.council_bench.questions import load
from benchmarks.council_bench.report import report
from benchmarks.council_bench.run import Measured, Wanted, measure
from server.accounts.secrets import new_token
from server.cli.options import address_of, run, settings_from, settings_options
from server.clock import SystemClock
from server.council.names import SIZE, SIZE_MAX
from server.engines.calibration import TOGETHER_MAX, Calibration, calibrate, costs_of
from server.engines.configured import engines_from
from server.engines.contention import Contention, Resident, contention
from server.engines.protocol import Engine
from server.errors import NotFound, StartError
from server.settings import Settings


@click.group()
def bench() -> None:
    """Benchmarks: sharing, engines, councils."""


@bench.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sharing(arguments: tuple[str, ...]) -> None:
    """The rules of sharing against other policies, on a simulated engine. `--help` lists its flags."""
    from benchmarks.sharing.__main__ import main  # noqa: PLC0415 (only here: it starts a Redis of its own)

    raise SystemExit(main(arguments))


@bench.command()
@click.option("--engine", "engines", multiple=True, help="As in the settings: [name=][kind+]URL; may be repeated.")
@click.option("--model", help="The model to measure.  [default: each engine's first]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@settings_options
def engine(config: Path | None, model: str | None, as_json: bool, **flags: Any) -> None:  # noqa: ANN401, FBT001
    """Measure how fast engines are, and what their tokens should cost. Nothing else should use them meanwhile."""
    settings = settings_from(config, **flags)
    if not settings.engines:
        raise StartError("Name an engine to measure: --engine http://host:port/v1")
    found, beside = run(_measured(settings, model))
    if as_json:
        click.echo(msgspec.json.encode({"engines": found, "contention": beside}))
        return
    for each in found:
        _show(each)
    if beside:
        click.echo("\nanswering at the same time, what is left of each one's own rate")
    for each_set in beside:
        click.echo("  " + ", ".join(f"{name} {left:.2f}" for name, left in each_set.left.items()))
    costs = [f'"{name}={amount[0]}:{amount[1]}"' for name, amount in costs_of(found).items()]
    click.echo(f"\ncosts = [{', '.join(costs)}]")


@bench.command()
@click.option("--models", help="Models of the server, with commas; the first leads.  [default: all]")
@click.option("--sizes", default="1,2,3", show_default=True, help="Sizes of councils, with commas.")
@click.option(
    "--strategies", default="auto", show_default=True, help="Names, with commas; auto is the server's choice."
)
@click.option(
    "--questions",
    default="general",
    show_default=True,
    help="general, server (what demonstration models know), or a TOML file.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Ask only so many questions.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=300, show_default=True, help="Of each answer.")
@click.option("--url", help="The server's address.  [default: that of the server on the data folder]")
@click.option("--key", required=True, help="An API key (`wirthforge key create`); - reads it from standard input.")
@click.option("--json", "as_json", is_flag=True, help="For programs, with every answer.")
@settings_options
def council(  # noqa: PLR0913 (its options)
    config: Path | None,
    data_dir: Path | None,
    *,
    models: str | None,
    sizes: str,
    strategies: str,
    questions: str,
    limit: int | None,
    max_tokens: int,
    url: str | None,
    key: str,
    as_json: bool,
) -> None:
    """Measure councils of a running server beside its leader alone: time, tokens, contention, right answers."""
    wanted = Wanted(
        models=() if models is None else _listed(models, "--models"),
        sizes=tuple(_size(each) for each in _listed(sizes, "--sizes")),
        strategies=_listed(strategies, "--strategies"),
        questions=load(questions)[:limit],
        source=questions,
        tokens_max=max_tokens,
    )
    key = sys.stdin.readline().strip() if key == "-" else key
    address = url or address_of(settings_from(config, data_dir=data_dir))
    found = run(_councils(address, key, wanted))
    click.echo(msgspec.json.encode(found) if as_json else report(found))


async def _councils(url: str, key: str, wanted: Wanted) -> Measured:
    async with aiohttp.ClientSession() as session:
        server = Server(session, url, key, lambda: perf_counter() * 1000)
        return await measure(server, wanted, SystemClock(), lambda line: click.echo(line, err=True))


def _listed(words: str, option: str) -> tuple[str, ...]:
    """What stands between commas, each once."""
    found = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    if not found:
        raise StartError(f"{option} names nothing.")
    return found


def _size(word: str) -> int:
    if SIZE.fullmatch(word) is None or int(word) > SIZE_MAX:
        raise StartError(f"--sizes takes numbers from 1 to {SIZE_MAX} with commas, not {word[:100]!r}.")
    return int(word)


def _show(found: Calibration) -> None:
    click.echo(f"{found.model} on {found.engine}")
    click.echo(f"  first token     {found.first_token_ms:8.1f} ms, short prompt")
    click.echo(f"  prompt token    {found.prefill_us:8.1f} µs ({1e6 / found.prefill_us:.0f} tokens/s)")
    click.echo(f"  answer token    {found.decode_us:8.1f} µs alone")
    for each in found.together:
        knee = "   more add next to nothing" if each.answers == found.knee else ""
        click.echo(f"  {each.answers:4} answers    {each.tokens_per_s:8.0f} tokens/s{knee}")


async def _measured(settings: Settings, model: str | None) -> tuple[Sequence[Calibration], Sequence[Contention[str]]]:
    engines = engines_from(settings)
    clock = SystemClock()
    try:
        chosen: dict[str, Resident] = {}
        for each in engines:
            served = [listed.id for listed in await each.probe()]
            if not served or (model is not None and model not in served):
                raise NotFound(f"Engine {each.name} has no model{'' if model is None else f' {model}'}.")
            chosen[each.name] = each, model or served[0]
        found = [
            await calibrate(each, name, clock=clock, nonce=new_token, answers_max=_answers_max(each))
            for each, name in chosen.values()
        ]
        beside = await contention(chosen, clock=clock, nonce=new_token)
    finally:
        await asyncio.gather(*(each.close() for each in engines))
    return found, beside


def _answers_max(engine: Engine) -> int:
    """As many as it says that it takes; where it does not say, as many as bring something."""
    return TOGETHER_MAX if "slots" in getattr(engine, "assumed", ("slots",)) else engine.slots
