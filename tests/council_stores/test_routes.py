"""What councils store, over HTTP: what admins define, see and forget, and what people say of theirs."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from msgspec.structs import replace

from server.council.contention import Contentions
from server.council.names import ROUNDS_MAX
from server.council.runs import Run, Runs
from server.council.skills import COUNTED_PER_DAY_MAX
from server.settings import Settings
from tests.boxes import PASSWORD, Box, Person
from tests.conftest import MakeBox
from tests.council_stores.parts import member, run
from tests.stand_ins.openai_engine import MODEL
from tests.web.described import litestar

COUNCILS = "/api/admin/councils"
SKILLS = "/api/admin/skills"
CONTENTION = "/api/admin/contention"
RUNS = "/api/admin/council-runs"
PAIR: dict[str, Any] = {"members": [MODEL, "large"], "strategy": "vote"}


@pytest.fixture
async def root(box: Box) -> Person:
    """The admin."""
    return await box.person("root", "admin")


@pytest.fixture
async def admin(box: Box, root: Person) -> AsyncIterator[httpx.AsyncClient]:
    """Their client."""
    async with box.http(headers=root.bearer) as client:
        yield client


@pytest.fixture
async def ann(box: Box) -> Person:
    """Somebody else."""
    return await box.person("ann")


@pytest.fixture
async def client(box: Box, ann: Person) -> AsyncIterator[httpx.AsyncClient]:
    """Their client."""
    async with box.http(headers=ann.bearer) as client:
        yield client


async def stored(box: Box, person: Person, *members: Any, **fields: Any) -> Run:
    """A council of theirs, as the server stores it."""
    runs = Runs(box.database, box.clock)
    made = run(person.user.id, **({"members": members} if members else {}), **fields)
    runs.record(made)
    await runs.settle(made.id)
    return made


def error(answer: httpx.Response) -> tuple[int, str, str | None]:
    """What went wrong, and where."""
    said = answer.json()["error"]
    assert said["message"].endswith(".")
    return answer.status_code, said["code"], said["param"]


async def test_an_admin_defines_lists_and_removes_councils(admin: httpx.AsyncClient, root: Person) -> None:
    """What is left out has its default; what no engine serves is taken, and told; each change is in the log."""
    assert (await admin.get(COUNCILS)).json() == []
    answer = await admin.put(f"{COUNCILS}/thinkers", json=PAIR | {"chair": "large", "rounds": 2})
    assert answer.status_code == 200
    made = answer.json()
    assert made == PAIR | {
        "name": "thinkers",
        "chair": "large",
        "rounds": 2,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
        "updated_by": str(root.user.id),
        "warnings": ["No engine serves 'large' now."],
    }
    plain = (await admin.put(f"{COUNCILS}/a", json={"members": [MODEL]})).json()
    assert (plain["strategy"], plain["chair"], plain["rounds"], plain["warnings"]) == ("council-k", None, 1, [])
    assert (await admin.get(COUNCILS)).json() == [plain, made]
    assert (await admin.get(f"{COUNCILS}/thinkers")).json() == made
    again = (await admin.put(f"{COUNCILS}/thinkers", json=PAIR)).json()
    assert (again["created_at"], again["chair"]) == (made["created_at"], None)
    assert (await admin.delete(f"{COUNCILS}/thinkers")).status_code == 204
    for method in ("GET", "DELETE"):
        assert error(await admin.request(method, f"{COUNCILS}/thinkers")) == (404, "council_not_found", None)
    assert (await admin.get(COUNCILS)).json() == [plain]
    log = (await admin.get("/api/admin/audit")).json()
    assert [(row["action"], row["subject"]) for row in log] == [
        ("council.remove", "council thinkers"),
        ("council.set", "council thinkers"),
        ("council.set", "council a"),
        ("council.set", "council thinkers"),
    ]


BAD: list[tuple[str, Any, str, str | None]] = [
    ("3", PAIR, "council_name", "name"),
    ("self", PAIR, "council_name", "name"),
    ("Big", PAIR, "council_name", "name"),
    ("a%00b", PAIR, "council_name", "name"),
    ("x" * 41, PAIR, "council_name", "name"),
    ("a", PAIR | {"members": []}, "invalid_request", "members"),
    ("a", PAIR | {"members": [str(number) for number in range(7)]}, "invalid_request", "members"),
    ("a", PAIR | {"members": ["m", "m"]}, "invalid_request", "members"),
    ("a", PAIR | {"members": ["council:3"]}, "invalid_request", "members"),
    ("a", PAIR | {"members": ["a\0b"]}, "invalid_request", "members"),
    ("a", PAIR | {"chair": "council"}, "invalid_request", "chair"),
    ("a", PAIR | {"strategy": "loudest"}, "invalid_request", "strategy"),
    ("a", PAIR | {"rounds": 0}, "bad_request", None),
    ("a", PAIR | {"rounds": 10**30}, "bad_request", None),
    ("a", PAIR | {"rounds": 1.5}, "bad_request", None),
    ("a", PAIR | {"members": MODEL}, "bad_request", None),
    ("a", PAIR | {"members": [1]}, "bad_request", None),
    ("a", PAIR | {"size": 3}, "bad_request", None),
    ("a", {"strategy": "vote"}, "bad_request", None),
    ("a", [], "bad_request", None),
    ("a", None, "bad_request", None),
]


async def test_what_is_no_council_is_refused(admin: httpx.AsyncClient) -> None:
    """By its field where our rule says no, in one sentence everywhere; nothing is stored and nothing logged."""
    for name, body, code, param in BAD:
        answer = await admin.put(f"{COUNCILS}/{name}", json=body)
        assert error(answer) == (400, code, param), (name, body)
        assert "\n" not in answer.json()["error"]["message"]
    for content in (b"", b"{", b"\xff", b"[[["):
        assert (await admin.put(f"{COUNCILS}/a", content=content)).status_code == 400, content[:9]
    assert (await admin.put(f"{COUNCILS}/a", content=b" " * 1024 * 1024)).status_code == 413
    assert (await admin.get(COUNCILS)).json() == []
    assert (await admin.get("/api/admin/audit")).json() == []


def skill(model: str, kind: str, role: str, wins: float, losses: float) -> dict[str, Any]:
    """As one person made it."""
    counted = {"people": 1, "wins_counted": wins, "losses_counted": losses}
    return {"model": model, "kind": kind, "role": role, "wins": wins, "losses": losses} | counted


async def test_feedback_becomes_skills(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, box: Box, ann: Person
) -> None:
    """A pick, and a thumb in its place; an admin sees what counts, and resets it."""
    asked = await stored(box, ann)
    answer = await client.post(f"/api/councils/{asked.id}/feedback", json={"pick": "B"})
    assert answer.status_code == 200
    assert answer.json() == {"pick": "B", "thumb": None, "regenerated": False, "counts": True}
    assert (await admin.get(SKILLS)).json() == [
        skill("large", "open", "answer", 1.0, 0.0),
        skill("other", "open", "answer", 0.0, 0.5),
        skill("small", "open", "answer", 0.0, 0.5),
    ]
    answer = await client.post(f"/api/councils/{asked.id}/feedback", json={"thumb": "up"})
    assert answer.json() == {"pick": None, "thumb": "up", "regenerated": False, "counts": True}
    chaired = await stored(
        box, ann, member("A", MODEL, "leader"), member("A", MODEL, "chair"), kind="chat", winner=None
    )
    await client.post(f"/api/councils/{chaired.id}/feedback", json={"regenerated": True})
    assert (await admin.get(SKILLS)).json() == [
        skill("small", "open", "answer", 1.0, 0.0),
        skill(MODEL, "chat", "chair", 0.0, 0.5),
    ]
    assert (await admin.delete(SKILLS, params={"kind": "none"})).json() == {"removed": 0}
    assert (await admin.delete(SKILLS, params={"model": "small"})).json() == {"removed": 1}
    assert (await admin.delete(SKILLS)).json() == {"removed": 1}
    assert (await admin.get(SKILLS)).json() == []
    assert [row["feedback"]["counts"] for row in (await admin.get(RUNS)).json()] == [False, False]


async def test_feedback_that_compares_nothing_or_is_too_much_says_so(
    client: httpx.AsyncClient, box: Box, ann: Person
) -> None:
    """It is taken all the same, with `counts` false."""
    samples = await stored(box, ann, member("A", MODEL, "leader"), member("B", MODEL))
    answer = await client.post(f"/api/councils/{samples.id}/feedback", json={"pick": "B"})
    assert answer.json()["counts"] is False
    runs = Runs(box.database, box.clock)
    many = [run(ann.user.id) for _ in range(COUNTED_PER_DAY_MAX + 1)]
    for each in many:
        runs.record(each)
    await runs.settle(many[0].id)
    counted = [
        (await client.post(f"/api/councils/{each.id}/feedback", json={"thumb": "up"})).json()["counts"] for each in many
    ]
    assert counted == [True] * COUNTED_PER_DAY_MAX + [False]


async def test_feedback_that_says_nothing_or_is_of_nobody(client: httpx.AsyncClient, box: Box, ann: Person) -> None:
    """Bad bodies, labels that nobody has, councils of others and of nobody."""
    own, other = await stored(box, ann), await stored(box, await box.person("ben"))
    path = f"/api/councils/{own.id}/feedback"
    bad: list[Any] = [{}, [], None, {"pick": "A", "thumb": "up"}, {"thumb": "sideways"}, {"pick": 1}, {"stars": 5}]
    for body in (*bad, {"regenerated": False}, {"pick": "A", "regenerated": True}, {"regenerated": "yes"}):
        assert error(await client.post(path, json=body))[0] == 400, body
    for label in ("Z", "", "a", "A\0", "A" * 10_000):
        assert error(await client.post(path, json={"pick": label})) == (400, "invalid_request", "pick")
    for which in (other.id, uuid4(), UUID(int=0)):
        answer = await client.post(f"/api/councils/{which}/feedback", json={"thumb": "up"})
        assert error(answer) == (404, "council_not_found", None)
    assert (await client.post("/api/councils/thinkers/feedback", json={"thumb": "up"})).status_code == 404
    assert (await client.get(path)).status_code == 405
    async with box.http() as stranger:
        assert error(await stranger.post(path, json={"thumb": "up"}))[0] == 401


async def test_feedback_comes_from_the_browser_too(box: Box) -> None:
    """With a session, from the box's own pages alone."""
    ann = await box.person("cid", "member", PASSWORD)
    path = f"/api/councils/{(await stored(box, ann)).id}/feedback"
    async with box.http() as browser:
        await browser.post("/api/login", json={"name": "cid", "password": PASSWORD})
        assert (await browser.post(path, json={"pick": "A"})).status_code == 200
        elsewhere = await browser.post(path, json={"pick": "A"}, headers={"Origin": "https://elsewhere.example"})
        assert elsewhere.status_code == 403


async def test_admins_read_what_councils_did(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, box: Box, ann: Person
) -> None:
    """Newest first, a page at a time, with what was said of them and without what was said in them."""
    asked = [await stored(box, ann, started_at=box.clock.now()) for _ in range(5)]
    await client.post(f"/api/councils/{asked[4].id}/feedback", json={"pick": "C"})
    pages = [(await admin.get(RUNS, params={"limit": 2})).json()]
    while len(pages[-1]) == 2:
        pages.append((await admin.get(RUNS, params={"limit": 2, "before": pages[-1][-1]["id"]})).json())
    listed = [row for page in pages for row in page]
    assert [row["id"] for row in listed] == [str(each.id) for each in reversed(asked)]
    assert listed == (await admin.get(RUNS)).json()
    newest = listed[0]
    assert newest["feedback"] == {"pick": "C", "thumb": None, "regenerated": False, "counts": True}
    assert listed[1]["feedback"] is None
    assert (newest["user_id"], newest["name"], newest["outcome"]) == (str(ann.user.id), "council:3", "completed")
    assert newest["members"][1] == {
        "label": "B",
        "model": "large",
        "engine": "e",
        "role": "member",
        "state": "done",
        "reason": None,
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "cached_tokens": 0,
        "first_token_ms": 12,
        "total_ms": 34,
    }
    assert (await admin.get(RUNS, params={"before": str(uuid4())})).json() == []
    for wrong in ({"limit": 0}, {"limit": 101}, {"limit": "x"}, {"before": "x"}):
        assert (await admin.get(RUNS, params=wrong)).status_code == 400, wrong


async def test_contention_is_shown_and_reset(admin: httpx.AsyncClient, box: Box) -> None:
    """What was left, how often it was seen, on which hardware."""
    seen = Contentions(box.database, box.clock, hardware=lambda: "2 x GPU")
    for left in (0.25, 1.0):
        seen.observe("host", 2, left)
    seen.observe("gpu-1", 3, 0.1)
    await seen.step()
    first, second = (await admin.get(CONTENTION)).json()
    assert first == {"box": "gpu-1", "hardware": "2 x GPU", "size": 3, "count": 1, "left": pytest.approx(0.1)}
    assert second == {"box": "host", "hardware": "2 x GPU", "size": 2, "count": 2, "left": pytest.approx(0.5)}
    assert (await admin.delete(CONTENTION, params={"box": "host"})).json() == {"removed": 1}
    assert (await admin.delete(CONTENTION)).json() == {"removed": 1}
    assert (await admin.get(CONTENTION)).json() == []


async def test_usage_tells_which_council_it_was_for(client: httpx.AsyncClient, box: Box, ann: Person) -> None:
    """With the role there, and why the council was of its size; other requests belong to none."""
    asked = await stored(box, ann, reason="2 of 3: somebody else waits.")
    event: dict[str, str | int] = {
        "model": MODEL,
        "surface": "chat.completions",
        "user": str(ann.user.id),
        "key": "",
        "engine": "e",
        "outcome": "completed",
        "input_tokens": 1,
        "output_tokens": 2,
        "queue_ms": 3,
        "first_token_ms": -1,
        "total_ms": 4,
    }
    parts = [("leader", asked.id), ("chair", asked.id), ("member", uuid4()), ("", "")]
    for number, (role, council) in enumerate(parts):
        own: dict[str, str | int] = {"role": role, "council": str(council)} if council else {}
        request = str(uuid4())
        own |= {"id": request, "started_at_ms": 1_800_000_000_000 - number}
        await box.ledger.finish(request, "e", event | own)
    await box.usage(4)
    rows = (await client.get("/api/usage")).json()
    assert [(row["role"], row["council_id"], row["council_reason"]) for row in rows] == [
        ("leader", str(asked.id), asked.reason),
        ("chair", str(asked.id), asked.reason),
        ("member", str(parts[2][1]), None),
        (None, None, None),
    ]


async def test_members_and_strangers_administer_nothing(client: httpx.AsyncClient, box: Box) -> None:
    """403 and 401, whatever they send."""
    asks = [("GET", COUNCILS), *((method, f"{COUNCILS}/a") for method in ("GET", "PUT", "DELETE")), ("GET", RUNS)]
    asks += [(method, path) for path in (SKILLS, CONTENTION) for method in ("GET", "DELETE")]
    async with box.http() as stranger:
        for method, path in asks:
            answer = await client.request(method, path, json=PAIR)
            assert error(answer) == (403, "admin_only", None), path
            assert (await stranger.request(method, path, json=PAIR)).status_code == 401


async def test_what_one_replica_is_told_the_other_knows(make_box: MakeBox, settings: Settings, engine_url: str) -> None:
    """A council that was defined on one is removed on the other."""
    here, there = [await make_box(replace(settings, engines=(engine_url,))) for _ in range(2)]
    root = await here.person("root", "admin")
    async with here.http(headers=root.bearer) as one, there.http(headers=root.bearer) as two:
        made = (await one.put(f"{COUNCILS}/thinkers", json=PAIR)).json()
        assert (await two.get(COUNCILS)).json() == [made]
        assert (await two.delete(f"{COUNCILS}/thinkers")).status_code == 204
        assert (await one.get(COUNCILS)).json() == []


def test_the_schema_describes_them() -> None:
    """With their bounds, so that the web client is typed by them."""
    schema = litestar().openapi_schema.to_schema()
    shapes = schema["components"]["schemas"]
    assert set(shapes["FeedbackRequest"]["properties"]) == {"pick", "thumb", "regenerated"}
    assert shapes["CouncilDefinition"]["required"] == ["members"]
    rounds = shapes["CouncilDefinition"]["properties"]["rounds"]
    assert (rounds["minimum"], rounds["maximum"]) == (1, ROUNDS_MAX)
    (limit,) = (each for each in schema["paths"][RUNS]["get"]["parameters"] if each["name"] == "limit")
    assert (limit["schema"]["minimum"], limit["schema"]["maximum"]) == (1, 100)
    assert set(schema["paths"]["/api/councils/{council_id}/feedback"]) == {"post"}
