"""`wirthforge doctor ledger`: whether every admitted request has one usage row, and budgets are the sum of the rows."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from redis.exceptions import RedisError

from quotas.ledger import Ledger
from server.cli.options import open_database, run, settings_from, settings_options
from server.clock import SystemClock
from server.embedded.redis import Redis as EmbeddedRedis
from server.errors import Unavailable
from server.settings import Settings
from server.sharing.redis import connect_redis
from server.usage.invariants import LedgerCheck
from server.usage.verdict import Line, Verdict

TOKENS = ("tokens", "= rows", "+ events", "+ reserved")
REQUESTS = ("requests", "= rows", "+ events", "+ held")
HEADINGS = ("person", "window", *TOKENS, *REQUESTS, "")
TEXT_COLUMNS = 2


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@settings_options
@click.pass_obj
def ledger(given: dict[str, Any] | None, /, *, as_json: bool, config: Path | None, **flags: Any) -> None:  # noqa: ANN401
    """Compare budgets in Redis with usage in Postgres, on live data. Exit status 1 if something does not hold.

    It changes nothing, and may be asked while people are served.
    """
    before = given or {}
    flags = {name: before.get(name) if value is None else value for name, value in flags.items()}
    settings = settings_from(config or before.get("config"), **flags)
    verdict = run(_verdict(settings))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(verdict)))
    else:
        click.echo("\n".join(_told(verdict)))
    if not verdict.is_well:
        sys.exit(1)


async def _verdict(settings: Settings) -> Verdict:
    clock = SystemClock()
    async with open_database(settings) as database:
        redis = connect_redis(settings.redis_url or EmbeddedRedis(settings.data_dir, clock).url)
        try:
            return await LedgerCheck(Ledger(redis), database, clock).run()
        except (RedisError, OSError) as error:
            sentence = f"Redis cannot be reached ({type(error).__name__}): is REDIS_URL right?"
            raise Unavailable(sentence) from None
        finally:
            await redis.aclose()


def _told(verdict: Verdict) -> list[str]:
    """The table, what is remarkable, and every breach in a sentence."""
    rows = [HEADINGS, *(_cells(line) for line in verdict.lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [_aligned(row, widths) for row in rows] if verdict.lines else ["Nobody has asked for anything yet."]
    servers = f"{verdict.servers} server{'' if verdict.servers == 1 else 's'}"
    lines += [
        "",
        f"{servers}; {verdict.running} requests run, {verdict.waiting} wait; {verdict.events} events not yet written",
        *(f"note    {note}" for note in verdict.notes),
        *(f"{click.style('broken', fg='red')}  {breach.sentence}" for breach in verdict.broken),
    ]
    if verdict.is_well:
        well = "every admitted request has one usage row, and budgets are the sum of the rows"
        lines.append(f"{click.style('ok', fg='green')}      {well}")
    return lines


def _cells(line: Line) -> tuple[str, ...]:
    asked = "?" if line.budget_requests is None else str(line.budget_requests)
    tokens = (line.budget_tokens, line.row_tokens, line.event_tokens, line.reserved_tokens)
    are_tokens_right = line.budget_tokens == line.row_tokens + line.event_tokens + line.reserved_tokens
    are_requests_right = line.budget_requests in {None, line.rows + line.events + line.held}
    mark = "" if are_tokens_right and are_requests_right else "!"
    return (line.person, line.window, *map(str, tokens), asked, *map(str, (line.rows, line.events, line.held)), mark)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        f"{cell:<{width}}" if column < TEXT_COLUMNS else f"{cell:>{width}}"
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
