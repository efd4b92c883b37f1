"""What machines that watch are told."""

from collections.abc import Mapping

from msgspec.structs import replace

from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox

NOWHERE = "http://127.0.0.1:1/v1"


async def _ready(box: Box, person: Person | None = None, query: str = "") -> tuple[int, Mapping[str, object]]:
    async with box.http(headers=person.bearer if person else {}) as client:
        answer = await client.get(f"/readyz{query}")
    return answer.status_code, answer.json()


async def test_a_whole_box_is_ready(box: Box) -> None:
    """Postgres, Redis and an engine answer; what they are is for admins."""
    ann, ben = await box.person("ann", "admin"), await box.person("ben")
    parts = {"postgres": True, "redis": True, "engine": True}
    assert await _ready(box, ann) == (200, {"status": "ready", "parts": parts})
    for nobody in (None, ben, Person(ben.user, "wf-unknown")):
        assert await _ready(box, nobody) == (200, {"status": "ready"})


async def test_redis_is_away(make_box: MakeBox, settings: Settings, engine_url: str) -> None:
    """An admin is told which part it is; the server itself is well."""
    box = await make_box(replace(settings, engines=(engine_url,)))
    ann = await box.person("ann", "admin")
    cut_off = await make_box(replace(settings, redis_url="redis://127.0.0.1:1", engines=(engine_url,)))
    parts = {"postgres": True, "redis": False, "engine": True}
    assert await _ready(cut_off, ann) == (503, {"status": "not ready", "parts": parts})
    assert await _ready(cut_off) == (503, {"status": "not ready"})
    async with cut_off.http() as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_the_engine_is_away(make_box: MakeBox, settings: Settings) -> None:
    """Nothing listens where the engine should be: not ready, but for whoever does not ask for engines."""
    box = await make_box(replace(settings, engines=(NOWHERE,)))
    ann = await box.person("ann", "admin")
    parts = {"postgres": True, "redis": True, "engine": False}
    assert await _ready(box, ann) == (503, {"status": "not ready", "parts": parts})
    assert await _ready(box, ann, "?engine=no") == (200, {"status": "ready", "parts": parts})
    async with box.http() as client:
        assert (await client.get("/readyz?engine=maybe")).status_code == 400


async def test_postgres_is_away(make_box: MakeBox, settings: Settings, engine_url: str) -> None:
    """Who needs the database is told so, in one sentence; nobody can be known to be an admin, and nothing fails."""
    nowhere = "postgresql://wirthforge@127.0.0.1:1/wirthforge"
    box = await make_box(replace(settings, database_url=nowhere, engines=(engine_url,)))
    async with box.http(headers={"Authorization": "Bearer wf-x"}) as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "not ready"})
        answer = await client.get("/api/usage")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable")
    assert answer.headers["Retry-After"] == "5"


async def test_metrics_are_for_admins(box: Box) -> None:
    """Prometheus reads them with an admin's key; they count what was answered, and name nobody."""
    ann, ben = await box.person("ann", "admin"), await box.person("ben")
    async with box.http() as client:
        await client.get("/health")
        answer = await client.get("/metrics", headers=ann.bearer)
        assert (await client.get("/metrics", headers=ben.bearer)).status_code == 403
        assert (await client.get("/metrics")).status_code == 401
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'wirthforge_http_requests_total{method="GET",route="/health",status="200"}' in answer.text
    assert "wirthforge_engine_up" in answer.text
    assert "ann" not in answer.text
