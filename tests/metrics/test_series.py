"""The page of metrics: how many series it can have, what they are called, and that it is there when it is needed."""

import asyncio
import threading
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from server.api import metrics
from server.api.scope import RequestScopes
from server.clock import SystemClock
from server.hardware.gauges import XIDS, saw_xid
from server.telemetry import DISKS, HTTP_REQUESTS, REGISTRY
from tests.boxes import Box, Person
from tests.metrics.conftest import Stage
from tests.metrics.prometheus import needs_prometheus, promtool
from tests.stand_ins.openai_engine import MODEL

# In whatever a stranger writes; no label may hold it.
MARK = "xyzzy"
# One engine: about 30 series of its own, 15 of each histogram; and 11 of each route that anybody has called.
# Routes times what they answer; engines of tests before this one are in the registry too.
MORE_MAX = 1_000
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE", "MKCOL", "M-SEARCH")
PLACES = ("/", "/v1/", "/v1/chat/", "/v1/models/", "/api/", "/api/admin/users/", "/api/conversations/", "/assets/")

words = st.text(max_size=12).map(lambda word: f"{word}{MARK}")


def samples(page: str) -> list[Sample]:
    """Every line of a page."""
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


async def page_of(box: Box, admin: Person) -> str:
    """What Prometheus gets."""
    async with box.http(headers=admin.bearer) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.fixture
async def root(box: Box) -> Person:
    """An admin."""
    return await box.person("root", "admin")


@pytest.fixture
async def count_before(box: Box, root: Person) -> int:
    """How many series there are as yet."""
    return len(samples(await page_of(box, root)))


@hypothesis_settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(METHODS), place=st.sampled_from(PLACES), word=words, is_known=st.booleans())
async def test_nobody_can_make_series(
    box: Box, root: Person, count_before: int, method: str, place: str, word: str, *, is_known: bool
) -> None:
    """Whatever strangers and people send as path, method, model, key, name or agent: no label holds it."""
    text = word.encode(errors="replace").decode()
    headers = {"User-Agent": quote(text), "X-Request-Id": quote(text)}
    headers |= root.bearer if is_known else {"Authorization": f"Bearer wf-{quote(text)}"}
    body = {"model": text, "messages": [{"role": "user", "content": text}], "user": text}
    async with box.http(headers=headers) as client:
        await client.request(method, place + quote(text, safe=""), json=body)
        for path in ("/v1/chat/completions", "/v1/completions", "/generate"):
            await client.post(path, json={**body, "prompt": text, "inputs": text})
        await client.post("/v1/chat/completions", json={**body, "model": f"council:{text}"})
        await client.post("/api/login", json={"name": text, "password": text})
    found = samples(await page_of(box, root))
    assert len(found) < count_before + MORE_MAX
    assert not [sample for sample in found if MARK in f"{sample.labels}".lower()]


async def test_people_are_in_no_label(box: Box) -> None:
    """Neither names nor ids nor keys: they are personal, and there is no end of them."""
    people = [await box.person(f"{MARK}-{number}", "admin") for number in range(3)]
    for person in people:
        async with box.openai(person) as client:
            await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": MARK}])
    page = await page_of(box, people[0])
    assert 'wirthforge_model_requests_total{engine="' in page
    assert MARK not in page
    assert not [person for person in people if str(person.user.id) in page or person.key in page]


async def test_a_method_that_somebody_made_up_has_no_name_of_its_own() -> None:
    """The HTTP parser refuses most of them; whatever passes is counted together."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})

    async def nothing(*_: Any) -> Any:
        return {"type": "http.request"}

    def counted() -> float:
        known = {"method": "other", "route": "unmatched", "status": "204"}
        return REGISTRY.get_sample_value("wirthforge_http_requests_total", known) or 0

    before = counted()
    for number in range(5):
        scope: Any = {"type": "http", "scheme": "http", "method": f"{MARK}{number}", "path": "/", "headers": []}
        await RequestScopes(app, SystemClock())(scope, nothing, nothing)
    assert counted() == before + 5
    assert not [
        sample for family in HTTP_REQUESTS.collect() for sample in family.samples if MARK in sample.labels["method"]
    ]


def test_a_driver_cannot_make_series() -> None:
    """Faults that NVIDIA has no number for are counted together."""
    for xid in (79, 256, 1 << 40, (1 << 40) + 1):
        saw_xid("d", xid)
    counted = {
        sample.labels["xid"]: sample.value
        for family in XIDS.collect()
        for sample in family.samples
        if sample.labels["device"] == "d"
    }
    assert counted == {"79": 1, "other": 3}


@needs_prometheus
async def test_names_and_units_are_as_prometheus_wants_them(stage: Stage) -> None:
    """Promtool finds nothing to say about the page of a box that has worked."""
    await stage.note("partitions", "backup")
    assert await stage.ask("well") == 200
    assert await stage.ask("council:2") == 200
    page = await stage.page()
    checked = promtool("check", "metrics", stdin=page)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    names = {sample.name for sample in samples(page)}
    assert not [name for name in names if not name.startswith(("wirthforge_", "process_"))]
    assert not [name for name in names if name.endswith("_created")]


async def test_the_page_is_there_while_postgres_is_not(stage: Stage) -> None:
    """For the key that had it before; for nobody else, and no other page."""
    await stage.note("backup")
    stranger = await stage.box.person("sue", "admin")
    ben = await stage.box.person("ben")
    assert "wirthforge_postgres_up 1.0" in await stage.page()
    await stage.postgres.cut()
    page = await stage.page()
    assert "wirthforge_postgres_up 0.0" in page
    # What it knew is still told.
    assert 'wirthforge_upkeep_last_success_timestamp_seconds{task="backup"}' in page
    for person in (stranger, ben):
        async with stage.box.http(headers=person.bearer) as client:
            assert (await client.get("/metrics")).status_code == 503
    async with stage.box.http(headers=stage.root.bearer) as client:
        assert (await client.get("/api/admin/users")).status_code == 503
    async with stage.box.http() as client:
        assert (await client.get("/metrics")).status_code == 401


async def test_the_page_is_there_while_something_hangs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Postgres that does not answer is away; a disk that does not answer is no Postgres."""
    assert "wirthforge_postgres_up 1.0" in await stage.page()
    monkeypatch.setattr(metrics, "DISK_S_MAX", 0.2)
    hangs = threading.Event()
    monkeypatch.setattr(DISKS, "look", hangs.wait)
    assert "wirthforge_postgres_up 1.0" in await stage.page()
    monkeypatch.setattr(metrics, "ANSWER_S_MAX", 0.5)
    stage.postgres.flows.clear()
    assert "wirthforge_postgres_up 0.0" in await stage.page()
    stage.postgres.flows.set()
    hangs.set()


async def test_a_key_that_was_revoked_is_not_remembered(box: Box) -> None:
    """It opens the page no more, and so neither when Postgres goes away later."""
    root = await box.person("root", "admin")
    assert "wirthforge_build_info{" in await page_of(box, root)
    (key,) = await box.keys.of(root.user.id)
    await box.keys.revoke(key.id, root.user.id)
    async with box.http(headers=root.bearer) as client:
        assert (await client.get("/metrics")).status_code == 401


async def test_all_that_runs_and_waits_is_told(stage: Stage) -> None:
    """By engine, with the slots that there are and how long the oldest has waited."""
    order = stage.orders["busy"]
    order.hold.clear()
    asked = [asyncio.create_task(stage.ask("busy")) for _ in range(6)]

    async def told() -> dict[str, float]:
        return {
            sample.name.removeprefix("wirthforge_"): sample.value
            for sample in samples(await stage.page())
            if sample.labels == {"engine": "busy"}
        }

    clock = SystemClock()
    deadline_ms = clock.monotonic_ms() + 10_000
    while (found := await told()).get("requests_waiting") != 2 or found["queue_oldest_seconds"] == 0:
        assert clock.monotonic_ms() < deadline_ms, found
        await clock.sleep_ms(50)
    assert (found["requests_running"], found["engine_slots"], found["requests_paused"]) == (4, 4, 0)
    order.hold.set()
    assert await asyncio.gather(*asked) == [200] * 6
    while (found := await told())["requests_running"]:
        assert clock.monotonic_ms() < deadline_ms, found
        await clock.sleep_ms(50)
    assert (found["requests_waiting"], found["queue_oldest_seconds"]) == (0, 0)
