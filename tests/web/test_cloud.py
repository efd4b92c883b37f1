"""Policies over HTTP: set by whom they belong to, bounded by admins, read back with the reason."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from msgspec.structs import replace
from sqlalchemy import text

from server.db.models import CloudProvider
from server.settings import Settings
from tests.boxes import Box, Person
from tests.clocks import BEGINNING
from tests.conftest import MakeBox
from tests.web.described import litestar

NOBODY = str(UUID(int=0))
BOX, OWN, VIEW = "/api/admin/cloud/policy", "/api/cloud/policy", "/api/cloud"


def _cap(person: Person) -> str:
    return f"/api/admin/cloud/caps/{person.user.id}"


def _error(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["message"], error["param"]


@pytest.fixture
async def root(box: Box) -> Person:
    """An admin."""
    return await box.person("root", "admin")


@pytest.fixture
async def ann(box: Box) -> Person:
    """A member."""
    return await box.person("ann")


async def _with_provider(box: Box) -> None:
    """A provider with two models, of which no key can be opened here: nothing is ever sent to it."""
    models = [
        {"name": name, "input_micros_per_million": 1, "output_micros_per_million": 1} for name in ("large", "small")
    ]
    async with box.database.transaction() as session:
        session.add(
            CloudProvider(
                id=uuid4(),
                name="elsewhere",
                kind="openai",
                url="https://example.org/v1",
                sealed_key=b"",
                models=models,
                is_enabled=True,
                updated_at=BEGINNING,
            )
        )
        await session.execute(text("INSERT INTO cloud_version VALUES (1, 1)"))


async def test_where_nobody_said_anything(box: Box, ann: Person) -> None:
    """Everything is as built in, nothing may be spent, and the problems say why nothing leaves."""
    async with box.http(headers=ann.bearer) as member:
        standing = (await member.get(VIEW)).json()
    problems = standing.pop("problems")
    assert standing == {
        "is_on": False,
        "mode": {"value": "ask", "won_by": "built-in"},
        "in_force": [],
        "on_personal_data": {"value": "ask", "won_by": "built-in"},
        "allows_code": {"value": False, "won_by": "built-in"},
        "patience_ms": {"value": 30_000, "won_by": "built-in"},
        "own": {},
        "cap": {},
        "box": {},
        "budget": {"limit_micros": 0, "spent_micros": 0, "reserved_micros": 0},
    }
    assert problems[0] == "The cloud is switched off on this box: nothing leaves."
    assert "No provider has a model that may be asked: nothing leaves." in problems
    assert any(each.startswith("No detection model is set: ") for each in problems)
    assert problems[-1] == "Your budget for clouds is 0, so nothing leaves. An admin can raise it."


async def test_what_is_in_force_and_why(box: Box, root: Person, ann: Person) -> None:
    """For each model of each provider, with who won; and what everybody said beside it."""
    await _with_provider(box)
    await box.allow(ann, cloud_cents_per_month=250)
    said_by_box = {
        "is_on": True,
        "mode": "allow",
        "for": [{"provider": "else*", "mode": "ask", "model": "small"}],
        "detection_model": "stand-in",
    }
    own = {"mode": "allow", "on_personal_data": "pseudonymise", "allows_code": True, "patience_ms": 5_000}
    async with box.http(headers=root.bearer) as admin, box.http(headers=ann.bearer) as member:
        assert (await admin.put(BOX, json=said_by_box)).json()["policy"] == said_by_box
        cap = (await admin.put(_cap(ann), json={"mode": "pseudonymised", "allows_code": False})).json()
        answer = await member.put(OWN, json=own)
        standing = (await member.get(VIEW)).json()
    assert cap == {
        "user_id": str(ann.user.id),
        "name": "ann",
        "policy": {"mode": "pseudonymised", "allows_code": False},
    }
    assert answer.json() == standing
    assert standing["is_on"] is True
    assert [
        (each["provider"], each["model"], each["mode"], each["won_by"], each["replaces"]["won_by"])
        for each in standing["in_force"]
    ] == [
        ("elsewhere", "large", "pseudonymised", "cap", "cap"),
        ("elsewhere", "small", "ask", "box", "cap"),
    ]
    assert standing["in_force"][0]["on_personal_data"] == {"value": "pseudonymise", "won_by": "own"}
    assert standing["allows_code"] == {"value": False, "won_by": "cap"}
    assert standing["patience_ms"] == {"value": 5_000, "won_by": "own"}
    assert (standing["own"], standing["box"], standing["cap"]) == (own, said_by_box, cap["policy"])
    assert standing["budget"] == {"limit_micros": 2_500_000, "spent_micros": 0, "reserved_micros": 0}
    assert not any(
        each.startswith(("The cloud is", "No engine", "No detection", "Your")) for each in standing["problems"]
    )


async def test_a_detection_model_that_nobody_serves_is_told(box: Box, root: Person) -> None:
    """It is taken, since engines come and go; until then only what was asked about leaves."""
    async with box.http(headers=root.bearer) as admin:
        told = (await admin.put(BOX, json={"is_on": True, "detection_model": "gone"})).json()
    assert told["policy"] == {"is_on": True, "detection_model": "gone"}
    assert any(each.startswith("No engine serves the detection model 'gone' now: ") for each in told["problems"])


async def test_put_replaces_and_delete_removes(box: Box, root: Person, ann: Person) -> None:
    """Nothing of the old policy stays; bounds are listed with the box; deleting twice is deleting once."""
    async with box.http(headers=root.bearer) as admin, box.http(headers=ann.bearer) as member:
        await admin.put(BOX, json={"is_on": True, "mode": "ask"})
        assert (await admin.put(BOX, json={"is_on": True})).json()["policy"] == {"is_on": True}
        await admin.put(_cap(ann), json={"mode": "ask"})
        shown = (await admin.get(BOX)).json()
        assert [(each["name"], each["policy"]) for each in shown["caps"]] == [("ann", {"mode": "ask"})]
        assert [(await admin.delete(_cap(ann))).status_code for _ in range(2)] == [204, 204]
        assert (await admin.get(_cap(ann))).json()["policy"] == {}
        assert (await admin.get(BOX)).json()["caps"] == []
        await member.put(OWN, json={"mode": "never"})
        assert (await member.put(OWN, json={})).json()["own"] == {}


BAD: list[tuple[Any, str, str | None]] = [
    ({"mode": "maybe"}, "mode is one of never, ask, pseudonymised, allow.", "mode"),
    ({"mode": None}, "mode is one of never, ask, pseudonymised, allow.", "mode"),
    ({"mode": "private"}, "mode is one of never, ask, pseudonymised, allow.", "mode"),
    ({"on_personal_data": True}, "on_personal_data is one of deny, ask, pseudonymise.", "on_personal_data"),
    ({"allows_code": "yes"}, "allows_code is true or false.", "allows_code"),
    ({"for": [{"provider": "a\x00b", "mode": "ask"}]}, "Providers and models in for are names, or patterns", "for"),
    ({"for": [{"mode": "ask"}]}, "Each of for has a provider and a mode, may have a model, and nothing else.", "for"),
    ({"modes": 1}, "There is no field called 'modes'. There are: ", "modes"),
]
NO_POLICIES = [
    *(b"", b"{", b"[]", b"null", b'"x"', b"7", b"a=b", b"\xff", b"[" * 100_000, b'{"a":' * 100_000),
    *(b'{"mode":NaN}', b'{"mode":1e999}', b'{"for":[{"provider":"\\ud800","mode":"ask"}]}'),
]


async def test_bad_policies_are_refused_by_field(box: Box, root: Person) -> None:
    """Each with 400, its sentence and its field, in every scope; nothing is stored and nothing logged."""
    async with box.http(headers=root.bearer) as admin:
        for path in (BOX, _cap(root), OWN):
            for said, sentence, param in BAD:
                status, message, field = _error(await admin.put(path, json=said))
                assert (status, field) == (400, param), said
                assert message.startswith(sentence), message
        for body in NO_POLICIES:
            assert _error(await admin.put(BOX, content=body))[:2] == (
                400,
                "The body is no JSON object of fields of a policy.",
            ), body
        assert (await admin.put(BOX, content=b" " * 2 * 1024 * 1024)).status_code == 413
        assert (await admin.get(BOX)).json()["policy"] == {}
        assert (await admin.get("/api/admin/audit")).json() == []


async def test_each_scope_says_what_is_its_own(box: Box, root: Person) -> None:
    """Neither a bound nor a person switches the cloud on, names who detects, or admits councils."""
    async with box.http(headers=root.bearer) as admin:
        for path, fields in (
            (_cap(root), ("is_on", "council_members", "detection_model", "detection_ms", "patience_ms")),
            (OWN, ("is_on", "council_members", "detection_model", "detection_ms")),
        ):
            for name in fields:
                status, message, param = _error(await admin.put(path, json={name: True}))
                assert (status, param) == (400, name)
                assert f"{name} is no field of " in message


async def test_a_member_sets_nothing_but_their_own(box: Box, root: Person, ann: Person) -> None:
    """Neither the box's policy nor a bound, through any method; what they try to slip into their own is refused."""
    async with box.http(headers=root.bearer) as admin, box.http(headers=ann.bearer) as member, box.http() as stranger:
        await admin.put(BOX, json={"is_on": True, "mode": "ask"})
        await admin.put(_cap(ann), json={"mode": "never"})
        before = (await admin.get(BOX)).json()
        for path in (BOX, _cap(ann), _cap(root)):
            for method in ("GET", "PUT", "DELETE", "PATCH", "POST"):
                answer = await member.request(method, path, json={"mode": "allow"})
                assert answer.status_code in {403, 405}, (method, path)
                assert (await stranger.request(method, path, json={})).status_code in {401, 405}
        for slipped in ({"scope": "box"}, {"user_id": str(root.user.id)}, {"own": {"mode": "allow"}}, {"is_on": True}):
            assert (await member.put(OWN, json={"mode": "allow", **slipped})).status_code == 400
        await member.put(OWN, json={"mode": "allow"})
        assert (await admin.get(BOX)).json() == before
        own = (await member.get(VIEW)).json()
        assert (own["mode"], own["own"]) == ({"value": "never", "won_by": "cap"}, {"mode": "allow"})
        for method, path in (("GET", VIEW), ("PUT", OWN)):
            assert (await stranger.request(method, path, json={})).status_code == 401


async def test_an_admin_is_not_told_what_people_choose(box: Box, root: Person, ann: Person) -> None:
    """Neither their own policy nor what a conversation says is in any answer that an admin gets, or in the log."""
    async with box.http(headers=root.bearer) as admin, box.http(headers=ann.bearer) as member:
        await member.put(OWN, json={"mode": "pseudonymised", "for": [{"provider": "hush", "mode": "never"}]})
        made = (await member.post("/api/conversations", json={"model": "stand-in", "title": "hush"})).json()
        await member.patch(f"/api/conversations/{made['id']}", json={"cloud": "private"})
        await admin.put(_cap(ann), json={"allows_code": False})
        paths = (BOX, _cap(ann), VIEW, "/api/admin/audit", "/api/admin/users", f"/api/conversations/{made['id']}")
        answers = [await admin.get(path) for path in paths]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 200, 404]
        assert not any("hush" in answer.text for answer in answers)
        assert answers[1].json()["policy"] == {"allows_code": False}
        assert (await member.get(VIEW)).json()["own"]["for"][0]["provider"] == "hush"


async def test_people_who_do_not_exist(box: Box, root: Person) -> None:
    """404, whatever is asked of them."""
    async with box.http(headers=root.bearer) as admin:
        for method in ("GET", "PUT", "DELETE"):
            answer = await admin.request(method, f"/api/admin/cloud/caps/{NOBODY}", json={"mode": "ask"})
            assert _error(answer) == (404, "There is no such person.", None), method
        assert (await admin.put("/api/admin/cloud/caps/ann", json={})).status_code == 404


async def test_the_log_tells_who_did_it(box: Box, root: Person, ann: Person) -> None:
    """Every change by an admin with its subject, before and after; newest first."""
    async with box.http(headers=root.bearer) as admin, box.http(headers=ann.bearer) as member:
        await admin.put(BOX, json={"is_on": True})
        await admin.put(BOX, json={"is_on": True})
        await member.put(OWN, json={"mode": "never"})
        await admin.put(OWN, json={"mode": "never"})
        await admin.put(_cap(ann), json={"mode": "ask"})
        await admin.delete(_cap(ann))
        log = (await admin.get("/api/admin/audit")).json()
    assert {(row["actor"], row["actor_id"]) for row in log} == {("root", str(root.user.id))}
    assert [(row["action"], row["subject"], row["before"], row["after"]) for row in log] == [
        ("cloud_policy.clear", "cloud policy of user ann", {"mode": "ask"}, None),
        ("cloud_policy.set", "cloud policy of user ann", None, {"mode": "ask"}),
        ("cloud_policy.set", "cloud policy of the box", None, {"is_on": True}),
    ]


async def test_admins_who_change_it_at_once(box: Box, root: Person) -> None:
    """All succeed, one after the other: the log has each of them once, and the policy is the last one's."""
    async with box.http(headers=root.bearer) as admin:
        answers = await asyncio.gather(*(admin.put(BOX, json={"patience_ms": each}) for each in range(1, 13)))
        assert {answer.status_code for answer in answers} == {200}
        log = (await admin.get("/api/admin/audit")).json()
        policy = (await admin.get(BOX)).json()["policy"]
    after_of = {(row["before"] or {}).get("patience_ms"): row["after"]["patience_ms"] for row in log}
    steps, last = 0, None
    while last in after_of:
        steps, last = steps + 1, after_of[last]
    assert steps == len(log) == 12
    assert policy == {"patience_ms": last}


async def test_a_change_is_seen_on_another_replica(make_box: MakeBox, settings: Settings, engine_url: str) -> None:
    """What is in force is read anew for whoever asks."""
    here, there = [await make_box(replace(settings, engines=(engine_url,))) for _ in range(2)]
    root, ann = await here.person("root", "admin"), await here.person("ann")
    async with here.http(headers=root.bearer) as admin, there.http(headers=ann.bearer) as member:
        for mode in ("never", "ask", "never"):
            await admin.put(BOX, json={"mode": mode})
            assert (await member.get(VIEW)).json()["mode"]["value"] == mode


def test_the_schema_shows_policies() -> None:
    """A policy in a request is the shape of a policy in an answer, with its words and their meaning."""
    schema = litestar().openapi_schema.to_schema()
    rule = schema["components"]["schemas"]["CloudRule"]
    assert list(rule["properties"]) == [
        *("is_on", "mode", "on_personal_data", "allows_code", "for", "patience_ms"),
        *("council_members", "detection_model", "detection_ms"),
    ]
    assert rule["required"] == []
    mode = rule["properties"]["mode"]
    assert mode["oneOf"] == [{"type": "string", "enum": ["never", "ask", "pseudonymised", "allow"]}]
    assert mode["description"] == "How much may leave: never, ask, pseudonymised, allow."
    for path in (OWN, BOX, "/api/admin/cloud/caps/{user_id}"):
        body = schema["paths"][path]["put"]["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": "#/components/schemas/CloudRule"}
