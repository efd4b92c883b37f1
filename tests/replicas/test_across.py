"""Three servers as processes, behind nginx and HAProxy: whatever one of them knows, all know."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import pytest

from benchmarks.replicas.proxies import KINDS, proxy
from server.upkeep.jobs import Job, Turn, run_jobs
from server.upkeep.owner import Owner
from tests.api.test_quotas import early_in_a_minute
from tests.boxes import PASSWORD, POLL_MS, Person
from tests.replicas.conftest import Stage, clock, short_folder
from tests.stand_ins.openai_engine import MODEL

CHAT = "/v1/chat/completions"
WAIT_MS_MAX = 15_000
# Three servers start before the first test, which takes a busy machine a while.
pytestmark = pytest.mark.timeout(240)


def body(text: str = "x", **options: object) -> dict[str, Any]:
    """A question."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 8, **options}


async def until(holds: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline_ms = clock.monotonic_ms() + WAIT_MS_MAX
    while not holds():
        assert clock.monotonic_ms() < deadline_ms
        await clock.sleep_ms(POLL_MS)


async def entered(stage: Stage, count: int) -> None:
    """Wait until so many run or wait, on all servers together."""
    (engine,) = [name for name in await engines_of(stage) if name]
    deadline_ms = clock.monotonic_ms() + WAIT_MS_MAX
    while sum(load := await stage.office.ledger.load(engine)) != count:
        assert clock.monotonic_ms() < deadline_ms, load
        await clock.sleep_ms(POLL_MS)


async def engines_of(stage: Stage) -> list[str]:
    """What the servers call their engine."""
    view = await stage.office.ledger.view()
    return [engine.name for engine in view.engines]


async def test_a_login_is_good_everywhere_until_it_ends_anywhere(stage: Stage, proxy_url: str) -> None:
    """The cookie that one server gave opens the others; logged out at one, it opens none."""
    name = f"login-{proxy_url.rpartition(':')[2]}"
    await stage.office.users.add(name, "member", PASSWORD)
    async with stage.at(proxy_url) as browser:
        answer = await browser.post("/api/login", json={"name": name, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        cookies = dict(browser.cookies)
        everywhere = [stage.at(url) for url in (proxy_url, *(server.url for server in stage.servers))]
        for client in everywhere:
            client.cookies.update(cookies)
            assert (await client.get("/api/usage")).status_code == 200
        assert (await everywhere[2].post("/api/logout")).status_code == 204
        for client in everywhere:
            client.cookies.update(cookies)
            assert (await client.get("/api/usage")).status_code == 401
            await client.aclose()


async def test_a_set_up_link_of_one_server_is_used_at_another_once(stage: Stage, proxy_url: str) -> None:
    """Made at the first, looked at through the proxy, used at the second, and worth nothing at the third."""
    port = proxy_url.rpartition(":")[2]
    admin = await stage.office.person(f"admin-{port}", "admin")
    one, two, three = (server.url for server in stage.servers)
    async with stage.at(one, admin) as first, stage.at(two) as second, stage.at(three) as third:
        invited = await first.post("/api/admin/users", json={"name": f"new-{port}", "role": "member"})
        assert invited.status_code == 201, invited.text
        token = invited.json()["setup_path"].partition("#")[2]
        async with stage.at(proxy_url) as browser:
            assert (await browser.post("/api/setup/check", json={"token": token})).json()["name"] == f"new-{port}"
        chosen = {"token": token, "name": f"new-{port}", "password": PASSWORD}
        assert (await second.post("/api/setup", json=chosen)).status_code == 200
        for client in (third, first):
            assert (await client.post("/api/setup", json=chosen)).status_code in {401, 404}


async def test_a_websocket_shows_the_requests_of_all_servers(stage: Stage, proxy_url: str) -> None:
    """One server pushes what runs and waits at the others, through the proxy."""
    ann = await stage.office.person(f"socket-{proxy_url.rpartition(':')[2]}")
    stage.order.hold.clear()
    clients = [stage.at(server.url, ann) for server in stage.servers]
    try:
        asking = [asyncio.create_task(client.post(CHAT, json=body())) for client in clients]
        await entered(stage, 3)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{proxy_url}/api/live", headers=ann.bearer) as socket,
            asyncio.timeout(WAIT_MS_MAX / 1000),
        ):
            states: list[str] = []
            while len(states) < 3:
                states = sorted(one["state"] for one in (await socket.receive_json())["requests"])
            assert states == ["queued", "queued", "running"]
            stage.order.hold.set()
            while states:
                states = [one["state"] for one in (await socket.receive_json())["requests"]]
        assert [(await task).status_code for task in asking] == [200] * 3
    finally:
        stage.order.hold.set()
        for client in clients:
            await client.aclose()


async def asked_in_turn(stage: Stage, asking: list[tuple[int, Person, str]]) -> list[str]:
    """Ask so at these servers while the only slot is taken; in which order the engine is asked then."""
    stage.order.hold.clear()
    stage.order.seen.clear()
    clients: dict[tuple[int, str], httpx.AsyncClient] = {}
    tasks = []
    try:
        for number, (server, person, text) in enumerate(asking, 1):
            client = clients.setdefault((server, person.key), stage.at(stage.servers[server].url, person))
            tasks.append(asyncio.create_task(client.post(CHAT, json=body(text))))
            await entered(stage, number)
        stage.order.hold.set()
        assert {(await task).status_code for task in tasks} == {200}
        # An engine may be asked for something else meanwhile, which is no conversation.
        return [seen["messages"][0]["content"] for seen in stage.order.seen if "messages" in seen]
    finally:
        stage.order.hold.set()
        for client in clients.values():
            await client.aclose()


async def test_one_queue_over_all_servers(stage: Stage) -> None:
    """What one person asks at three servers is answered in the order in which it was asked."""
    cid = await stage.office.person("cid")
    texts = [f"question {number}" for number in range(9)]
    assert await asked_in_turn(stage, [(number % 3, cid, text) for number, text in enumerate(texts)]) == texts


async def test_who_asks_at_three_servers_has_one_share(stage: Stage) -> None:
    """They get as much as somebody who asks at one, not three times as much."""
    hog, light = await stage.office.person("hog"), await stage.office.person("light")
    crowd = [(number % 3, hog, "hog") for number in range(12)]
    order = await asked_in_turn(stage, [*crowd, *((0, light, "light") for _ in range(5))])
    # The hog's first one ran already.
    last = max(number for number, who in enumerate(order) if who == "light")
    assert order[: last + 1].count("light") == 5
    assert order[: last + 1].count("hog") <= 5 + 2, order


async def test_a_budget_holds_across(stage: Stage, proxy_url: str) -> None:
    """Three requests a minute are three, wherever they are sent; the refusal says so through the proxy."""
    eve = await stage.office.person(f"eve-{proxy_url.rpartition(':')[2]}")
    await stage.office.allow(eve, requests_per_minute=3)
    await early_in_a_minute(stage.office, stage.office.ledger._redis)
    left = []
    for server in stage.servers:
        async with stage.at(server.url, eve) as client:
            answer = await client.post(CHAT, json=body())
            assert answer.status_code == 200, answer.text
            left.append(answer.headers["x-ratelimit-remaining-requests"])
    assert left == ["2", "1", "0"]
    async with stage.at(proxy_url, eve) as client:
        refused = await client.post(CHAT, json=body())
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["Retry-After"]) <= 60


@pytest.mark.parametrize("kind", [*KINDS, "nginx that buffers"])
async def test_tokens_pass_at_once(stage: Stage, kind: str) -> None:
    """The first one is there while the engine still holds back the second; also where nginx is told to buffer."""
    ann = await stage.office.person(f"stream-{kind.replace(' ', '-')}")
    stage.order.tokens, stage.order.held_after = 5, 1
    stage.order.hold.clear()
    addresses = [server.address for server in stage.servers]
    folder, buffers = short_folder(stage.folder, "buffers"), {"proxy_buffering off;": "proxy_buffering on;"}
    try:
        async with (
            proxy(kind.partition(" ")[0], folder, addresses, buffers if " " in kind else None) as url,
            stage.at(url, ann) as client,
            client.stream("POST", CHAT, json=body(stream=True)) as answer,
        ):
            lines = answer.aiter_lines()
            async with asyncio.timeout(WAIT_MS_MAX / 1000):
                while "word0" not in (line := await anext(lines)):
                    assert "word1" not in line
            assert not stage.order.hold.is_set()
            stage.order.hold.set()
            rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert sum("word" in line for line in rest) == 4
    finally:
        stage.order.hold.set()
        stage.order.tokens, stage.order.held_after = 3, 0


async def test_a_proxy_that_collects_all_the_same_changes_no_answer(stage: Stage) -> None:
    """It is late, and whole: the first token comes with the last."""
    ann = await stage.office.person("collected")
    changes = {"proxy_buffering off;": "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"}
    addresses = [server.address for server in stage.servers]
    async with (
        proxy("nginx", short_folder(stage.folder, "collects"), addresses, changes) as url,
        stage.at(url, ann) as client,
    ):
        answer = await client.post(CHAT, json=body(stream=True))
    assert answer.text.count("word") == 3
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_who_leaves_through_the_proxy_stops_the_engine(stage: Stage, proxy_url: str) -> None:
    """The proxy hangs up too, so the engine's stream ends and its slot is free."""
    ann = await stage.office.person(f"leaves-{proxy_url.rpartition(':')[2]}")
    stage.order.tokens, stage.order.held_after = 50, 1
    stage.order.hold.clear()
    stage.order.gone.clear()
    try:
        async with stage.at(proxy_url, ann) as client:
            async with client.stream("POST", CHAT, json=body(stream=True, max_tokens=50)) as answer:
                assert await anext(answer.aiter_lines())
            await asyncio.wait_for(stage.order.gone.wait(), WAIT_MS_MAX / 1000)
            await entered(stage, 0)
    finally:
        stage.order.hold.set()
        stage.order.tokens, stage.order.held_after = 3, 0


async def test_jobs_are_done_once(stage: Stage) -> None:
    """While one replica looks after the tables the others skip their turn."""
    began, may_end = [], asyncio.Event()

    async def work(_: Turn) -> None:
        began.append(1)
        await may_end.wait()

    url = stage.database_url

    async def run() -> int:
        return len([result async for result in run_jobs(Owner(url), [Job("once", "", work)], clock, lambda *_: None)])

    first = asyncio.create_task(run())
    await until(lambda: began == [1])
    assert [await run(), await run()] == [0, 0]
    may_end.set()
    assert await first == 1
    assert began == [1]


async def test_every_request_has_one_row(stage: Stage) -> None:
    """All that was asked above, at any server, was written by whichever came first; the books agree."""
    await entered(stage, 0)
    verdict = await stage.verdict()
    assert verdict.is_well, [breach.sentence for breach in verdict.broken]
    assert len(verdict.lines) > 5
