"""What `wirthforge doctor` looks at: what is given by URL, and what belongs to a server that runs on the data folder.

Everything is only read, with a bound on how long it may take: who asks is in a hurry. What to do about a finding is in
docs/operations.md, under the heading that its `fix` names.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import aiohttp
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from server.backup.making import TASK as BACKUP
from server.cli.options import owner_url
from server.clock import Clock
from server.db.migrate import require_newest
from server.embedded.postgres import Postgres
from server.embedded.redis import Redis as EmbeddedRedis
from server.errors import WirthforgeError
from server.settings import Settings
from server.sharing.redis import connect_redis
from server.upkeep.owner import Owner
from server.upkeep.status import RunStatus, runs

FREE_BYTES_MIN = 2 * 2**30
ANSWER_S_MAX = 5
PAGE = "docs/operations.md"
# Both come once a day; a day more is a box that was off for the night.
LATE = timedelta(days=2)


class Finding(Struct, frozen=True):
    """One thing that was looked at; `fix` is empty where all is well."""

    subject: str
    state: str
    fix: str = ""


async def answers(subject: str, question: Coroutine[Any, Any, object]) -> Finding:
    """Whether what is asked is answered. What it raises is the fix."""
    try:
        await question
    except WirthforgeError as error:
        return Finding(subject, "no", error.message)
    return Finding(subject, "answers")


async def services(settings: Settings) -> AsyncIterator[Finding]:
    """What is given by URL must answer."""
    if settings.database_url:
        yield await answers("postgres", require_newest(settings.database_url))
    if settings.redis_url:
        yield await answers("redis", ask_redis(settings.redis_url))


async def running(settings: Settings, address: str, clock: Clock) -> AsyncIterator[Finding]:
    """A server that runs on the data folder: its parts, whether it can serve, and when its tables were looked after."""
    if not settings.database_url:
        yield await answers("postgres", require_newest(Postgres(settings.data_dir, clock).url))
    if not settings.redis_url:
        yield await answers("redis", ask_redis(EmbeddedRedis(settings.data_dir, clock).url))
    if address:
        yield await _readiness(address)
    for finding in await _upkeep(owner_url(settings), clock):
        yield finding


def disk(folder: Path) -> Finding:
    """Whether there is room for what grows."""
    free = shutil.disk_usage(folder).free
    fix = "" if free >= FREE_BYTES_MIN else f"free some space: {PAGE}#a-disk-is-full"
    return Finding("disk", f"{free / 2**30:.0f} GiB free", fix)


async def ask_redis(url: str) -> None:
    """Raise WirthforgeError if Redis is away, or cannot write its file."""
    redis = connect_redis(url, connections_max=1)
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            # Asked first: a Redis that cannot write answers PING with an error.
            if writes := await _writes(redis):
                await cast("Any", redis.ping())
    except (RedisError, OSError, TimeoutError) as error:
        raise WirthforgeError(f"Redis cannot be reached ({type(error).__name__}): is REDIS_URL right?") from None
    finally:
        await redis.aclose()
    if not writes:
        raise WirthforgeError(f"Redis cannot write its file and takes nothing: is its disk full? {PAGE}#a-disk-is-full")


async def _writes(redis: Redis) -> bool:
    """Whether its append-only file can be written; one that does not tell can."""
    try:
        told: Mapping[str, object] = await redis.info("persistence")
    except ResponseError:
        return True
    return told.get("aof_last_write_status", "ok") == "ok"


async def _readiness(address: str) -> Finding:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S_MAX)) as http,
            http.get(f"{address}/readyz") as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return Finding("requests", f"no answer at {address} ({type(error).__name__})", f"see its log, and {PAGE}")
    if status == HTTPStatus.OK:
        return Finding("requests", "can be served")
    fix = f"if all is well above, every engine is away: {PAGE}#an-engine-is-down"
    return Finding("requests", "cannot be served", fix)


async def _upkeep(url: str, clock: Clock) -> list[Finding]:
    try:
        async with Owner(url).connection() as connection:
            known = await runs(connection)
    except WirthforgeError as error:
        return [Finding("upkeep", "not known", error.message)]
    made = known.pop(BACKUP, None)
    return [
        _told("upkeep", "last ran", list(known.values()), clock, f"{PAGE}#upkeep-is-late"),
        _told("backup", "last made", [made] if made else [], clock, f"{PAGE}#a-backup-is-late"),
    ]


def _told(subject: str, words: str, ran: Sequence[RunStatus], clock: Clock, fix: str) -> Finding:
    if not ran:
        return Finding(subject, "none yet")
    last = max(run.began_at for run in ran)
    state = f"{words} {last:%Y-%m-%d %H:%M} UTC"
    if failed := [run.job for run in ran if _has_failed(run)]:
        return Finding(subject, f"{state}; failed: {', '.join(failed)}", fix)
    return Finding(subject, state, fix if clock.now() - last > LATE else "")


def _has_failed(run: RunStatus) -> bool:
    return run.ended_at is not None and run.outcome != "done"
