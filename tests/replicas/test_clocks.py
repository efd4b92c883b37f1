"""Two servers whose clocks differ by minutes: what they share goes by the clock of Redis."""

import asyncio
from datetime import datetime, timedelta

from msgspec.structs import replace
from redis.asyncio import Redis

from server.clock import SystemClock
from server.settings import Settings
from server.usage.invariants import LedgerCheck
from tests.api.test_quotas import early_in_a_minute
from tests.boxes import PASSWORD, serve_box
from tests.stand_ins.openai_engine import MODEL, Order

CHAT = "/v1/chat/completions"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 8}


class Skewed(SystemClock):
    """The machine's time, and some minutes."""

    def __init__(self, minutes: int) -> None:
        self._by = timedelta(minutes=minutes)

    def now(self) -> datetime:
        """Wrong."""
        return super().now() + self._by


async def test_servers_with_clocks_that_differ_agree(
    settings: Settings, engine_url: str, redis: Redis, order: Order
) -> None:
    """Logins, set-up links, budgets and leases hold on both, and the books are exact."""
    shared = replace(settings, engines=(engine_url,), engine_slots=1, reserved_slots=0, engine_silence_ms_max=60_000)
    async with (
        serve_box(shared, clock=Skewed(+10)) as early,
        serve_box(shared, clock=Skewed(-10)) as late,
        early.http() as first,
        late.http() as second,
    ):
        ann = await early.person("ann", password=PASSWORD)
        assert (await first.post("/api/login", json={"name": "ann", "password": PASSWORD})).status_code == 200
        second.cookies.update(dict(first.cookies))
        assert (await second.get("/api/usage")).status_code == 200
        link = await late.users.invite((await late.users.add("ben", "member")).id)
        chosen = {"token": link, "name": "ben", "password": PASSWORD}
        assert (await first.post("/api/setup", json=chosen)).status_code == 200
        order.tokens, order.held_after = 4, 1
        order.hold.clear()
        async with early.http(headers=ann.bearer) as one, late.http(headers=ann.bearer) as two:
            asking = [asyncio.create_task(client.post(CHAT, json=BODY)) for client in (two, one)]
            await order.began.wait()
            # Longer than a lease: each renews its own, and neither takes the other's.
            for _ in range(7):
                await early.ledger.reap()
                await SystemClock().sleep_ms(1_000)
            order.hold.set()
            assert [(await task).status_code for task in asking] == [200, 200]
            await early.allow(ann, requests_per_minute=2)
            await early_in_a_minute(early, redis)
            statuses = [(await client.post(CHAT, json=BODY)).status_code for client in (one, two, one, two)]
            # The two above may lie in the minute before.
            assert statuses in ([200, 200, 429, 429], [429] * 4)
        rows = await late.usage(2 + statuses.count(200))
        assert {row.outcome for row in rows} == {"completed"}
        verdict = await LedgerCheck(late.ledger, late.database, SystemClock()).run()
        assert verdict.is_well, [breach.sentence for breach in verdict.broken]
