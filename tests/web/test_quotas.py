"""Quotas over HTTP: set, read back with the reason, refused with a sentence, and logged."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
from msgspec.structs import replace

from quotas.policy import LIMITS
from server.settings import Settings
from tests.boxes import Box, Person
from tests.conftest import MakeBox
from tests.web.described import litestar

NOBODY = str(UUID(int=0))
RULES = "/api/admin/quotas"


def _of(person: Person) -> str:
    return f"{RULES}/users/{person.user.id}"


def _error(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["message"], error["param"]


async def test_what_is_in_force_and_why(box: Box) -> None:
    """A person's limits read back with the rule that won each of them, to an admin and to themselves."""
    root, ann = await box.person("root", "admin"), await box.person("ann")
    async with box.http(headers=root.bearer) as admin, box.http(headers=ann.bearer) as member:
        await admin.put(f"{RULES}/default", json={"tokens_per_day": 1000, "weight": 50, "in_flight_max": 1})
        await admin.put(f"{RULES}/roles/member", json={"weight": 70, "in_flight_max": 2, "council_steps": ["queue"]})
        answer = await admin.put(_of(ann), json={"in_flight_max": None, "models": ["stand-in", "big-*"]})
        assert (await admin.get(_of(ann))).json() == answer.json() | {"warnings": []}
        own = (await member.get("/api/quota")).json()
    standing = answer.json()
    assert standing["scope"] == "user ann"
    assert standing["user"] == {"id": str(ann.user.id), "name": "ann", "role": "member"}
    assert standing["rule"] == {"in_flight_max": None, "models": ["stand-in", "big-*"]}
    assert list(standing["limits"]) == list(LIMITS)
    assert {name: (limit["value"], limit["rule"]) for name, limit in standing["limits"].items()} == {
        "weight": (70, "role member"),
        "requests_per_minute": (None, "built-in"),
        "tokens_per_minute": (None, "built-in"),
        "tokens_per_day": (1000, "default"),
        "tokens_per_month": (None, "built-in"),
        "in_flight_max": (None, "user ann"),
        "queue_length_max": (100, "built-in"),
        "context_tokens_max": (None, "built-in"),
        "council_size_max": (None, "built-in"),
        "council_steps": (["queue"], "role member"),
        "models": (["stand-in", "big-*"], "user ann"),
        "cloud_cents_per_month": (0, "built-in"),
    }
    assert own == {"limits": standing["limits"]}


async def test_rules_are_listed(box: Box) -> None:
    """All of them, with absent and null told apart, beside what is built in."""
    root, ann = await box.person("root", "admin"), await box.person("ann")
    async with box.http(headers=root.bearer) as admin:
        empty = (await admin.get(RULES)).json()
        assert (empty["default"], empty["roles"], empty["users"]) == ({}, [], [])
        assert list(empty["built_in"]) == list(LIMITS)
        assert empty["built_in"] == dict.fromkeys(LIMITS) | {
            "weight": 100,
            "queue_length_max": 100,
            "cloud_cents_per_month": 0,
        }
        await admin.put(f"{RULES}/default", json={"tokens_per_day": None})
        await admin.put(f"{RULES}/roles/admin", json={"weight": 200})
        await admin.put(_of(ann), json={"models": []})
        listed = (await admin.get(RULES)).json()
    assert listed["default"] == {"tokens_per_day": None}
    assert [(row["role"], row["rule"]) for row in listed["roles"]] == [("admin", {"weight": 200})]
    assert [(row["user"]["name"], row["rule"]) for row in listed["users"]] == [("ann", {"models": []})]


async def test_put_replaces_and_delete_removes(box: Box) -> None:
    """Nothing of the old rule stays; deleting twice is deleting once; the answer shows what the scope has then."""
    root = await box.person("root", "admin")
    async with box.http(headers=root.bearer) as admin:
        for path, scope in ((f"{RULES}/default", "default"), (f"{RULES}/roles/member", "role member")):
            await admin.put(path, json={"weight": 50, "council_size_max": 3})
            standing = (await admin.put(path, json={"weight": 60})).json()
            assert (standing["scope"], standing["rule"], standing["user"]) == (scope, {"weight": 60}, None)
            assert standing["limits"]["weight"] == {"value": 60, "rule": scope}
            assert standing["limits"]["council_size_max"] == {"value": None, "rule": "built-in"}
            assert [(await admin.delete(path)).status_code for _ in range(2)] == [204, 204]
        await admin.put(_of(root), json={"weight": 60})
        assert (await admin.delete(_of(root))).status_code == 204
        listed = (await admin.get(RULES)).json()
        assert (listed["default"], listed["roles"], listed["users"]) == ({}, [], [])


BAD: list[tuple[Any, str, str | None]] = [
    ({"weight": -1}, "weight is a whole number from 1 to 10000; 100 is a normal share.", "weight"),
    ({"weight": 10_001}, "weight is a whole number from 1 to 10000; 100 is a normal share.", "weight"),
    ({"weight": None}, "weight is a whole number from 1 to 10000; 100 is a normal share.", "weight"),
    ({"weight": True}, "weight is a whole number from 1 to 10000; 100 is a normal share.", "weight"),
    ({"weight": "100"}, "weight is a whole number from 1 to 10000; 100 is a normal share.", "weight"),
    ({"tokens_per_day": -5}, "tokens_per_day is a whole number from 1 to 1000000000000, or null", "tokens_per_day"),
    ({"tokens_per_day": 10**30}, "tokens_per_day is a whole number from 1 to", "tokens_per_day"),
    ({"tokens_per_day": 1.5}, "tokens_per_day is a whole number from 1 to", "tokens_per_day"),
    ({"in_flight_max": 0}, "in_flight_max is a whole number from 1 to 10000, or null (unlimited); to", "in_flight_max"),
    ({"council_size_max": False}, "council_size_max is a whole number from 1 to 64", "council_size_max"),
    ({"cloud_cents_per_month": -1}, "cloud_cents_per_month is a whole number from 0 to", "cloud_cents_per_month"),
    ({"council_steps": ["refuse"]}, "council_steps is a list of some of smaller_council, ", "council_steps"),
    ({"models": "stand-in"}, "models is a list of at most 100 names", "models"),
    ({"models": ["a\0b"]}, "models is a list of at most 100 names", "models"),
    ({"tokens_per_hour": 1}, "There is no limit called 'tokens_per_hour'. There are: weight, ", "tokens_per_hour"),
    ({"Weight": 1}, "There is no limit called 'Weight'. There are: weight, ", "Weight"),
]


async def test_bad_rules_are_refused_by_field(box: Box) -> None:
    """Each with 400, its sentence and its field; nothing is stored and nothing logged."""
    root = await box.person("root", "admin")
    async with box.http(headers=root.bearer) as admin:
        for path in (f"{RULES}/default", f"{RULES}/roles/admin", _of(root)):
            for rule, sentence, param in BAD:
                status, message, field = _error(await admin.put(path, json=rule))
                assert (status, field) == (400, param), rule
                assert message.startswith(sentence), message
                assert message.endswith(".")
        listed = (await admin.get(RULES)).json()
        assert (listed["default"], listed["roles"], listed["users"]) == ({}, [], [])
        assert (await admin.get("/api/admin/audit")).json() == []


NO_RULES = [
    *(b"", b"{", b"[]", b"null", b'"x"', b"7", b"a=b", b"\xff", b"[" * 100_000, b'{"a":' * 100_000),
    *(b'{"weight":NaN}', b'{"weight":1e999}', b'{"models":["\\ud800"]}'),
]


async def test_bodies_that_are_no_rule(box: Box) -> None:
    """No JSON, or none that is an object: 400, and a sentence."""
    root = await box.person("root", "admin")
    async with box.http(headers=root.bearer) as admin:
        for body in NO_RULES:
            answer = await admin.put(f"{RULES}/default", content=body)
            assert _error(answer) == (400, "The body is no JSON object of limits and their values.", None), body
        assert (await admin.put(f"{RULES}/default", content=b" " * 1024 * 1024)).status_code == 413
        assert (await admin.get("/api/admin/audit")).json() == []


async def test_scopes_that_do_not_exist(box: Box) -> None:
    """A person or a role that nobody has heard of: 404, whatever is asked of them."""
    root = await box.person("root", "admin")
    async with box.http(headers=root.bearer) as admin:
        for method in ("GET", "PUT", "DELETE"):
            answer = await admin.request(method, f"{RULES}/users/{NOBODY}", json={"weight": 50})
            assert _error(answer) == (404, "There is no such person.", None), method
        for method in ("PUT", "DELETE"):
            answer = await admin.request(method, f"{RULES}/roles/guest", json={"weight": 50})
            assert _error(answer) == (404, "There is no role 'guest'. There are: admin, member.", None), method
        assert (await admin.put(f"{RULES}/users/ann", json={})).status_code == 404


async def test_members_set_nothing(box: Box) -> None:
    """They see their own limits, and get 403 from everything else; without a key it is 401."""
    ann = await box.person("ann")
    asks = [
        ("GET", RULES),
        ("PUT", f"{RULES}/default"),
        ("DELETE", f"{RULES}/default"),
        ("PUT", f"{RULES}/roles/member"),
        ("DELETE", f"{RULES}/roles/member"),
        ("GET", _of(ann)),
        ("PUT", _of(ann)),
        ("DELETE", _of(ann)),
        ("GET", "/api/admin/audit"),
    ]
    async with box.http(headers=ann.bearer) as member, box.http() as stranger:
        for method, path in asks:
            answer = await member.request(method, path, json={"weight": 10_000})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_only"), path
            assert (await stranger.request(method, path, json={})).status_code == 401
        assert (await stranger.get("/api/quota")).status_code == 401
        assert (await member.get("/api/quota")).json()["limits"]["weight"] == {"value": 100, "rule": "built-in"}


async def test_a_model_that_no_engine_serves(box: Box) -> None:
    """It is taken, since engines come and go, and each name that fits none is told."""
    root = await box.person("root", "admin")
    async with box.http(headers=root.bearer) as admin:
        answer = await admin.put(f"{RULES}/default", json={"models": ["stand-in", "stand-*", "gone", "llama-*"]})
        assert answer.status_code == 200
        assert answer.json()["rule"] == {"models": ["stand-in", "stand-*", "gone", "llama-*"]}
        assert answer.json()["warnings"] == ["No engine serves 'gone' now.", "No engine serves 'llama-*' now."]


async def test_the_log_tells_who_did_it(box: Box) -> None:
    """Every change with its admin, its subject, and the rule before and after; newest first."""
    root, ann = await box.person("root", "admin"), await box.person("ann")
    async with box.http(headers=root.bearer) as admin:
        await admin.put(_of(ann), json={"weight": 50})
        await admin.put(_of(ann), json={"weight": 50})
        await admin.put(f"{RULES}/default", json={"tokens_per_day": None})
        await admin.delete(_of(ann))
        log = (await admin.get("/api/admin/audit")).json()
    assert {(row["actor"], row["actor_id"]) for row in log} == {("root", str(root.user.id))}
    assert [(row["action"], row["subject"], row["before"], row["after"]) for row in log] == [
        ("quota.clear", "user ann", {"weight": 50}, None),
        ("quota.set", "default", None, {"tokens_per_day": None}),
        ("quota.set", "user ann", None, {"weight": 50}),
    ]
    assert [row["subject_id"] for row in log] == [str(ann.user.id), None, str(ann.user.id)]


async def test_admins_who_change_one_rule_at_once(box: Box) -> None:
    """All succeed, one after the other: the log has each of them once, and the rule is the last one's."""
    root, ann = await box.person("root", "admin"), await box.person("ann")
    async with box.http(headers=root.bearer) as admin:
        answers = await asyncio.gather(*(admin.put(_of(ann), json={"weight": weight}) for weight in range(1, 21)))
        assert {answer.status_code for answer in answers} == {200}
        log = (await admin.get("/api/admin/audit")).json()
        rule = (await admin.get(_of(ann))).json()["rule"]
    assert sorted(row["after"]["weight"] for row in log) == list(range(1, 21))
    assert log[0]["after"] == rule
    assert [row["before"] for row in log] == [row["after"] for row in log[1:]] + [None]


async def test_a_change_reaches_another_replica(make_box: MakeBox, settings: Settings, engine_url: str) -> None:
    """What is set on one is in force on the other as soon as the answer is there."""
    here, there = [await make_box(replace(settings, engines=(engine_url,))) for _ in range(2)]
    root, ann = await here.person("root", "admin"), await here.person("ann")
    async with here.http(headers=root.bearer) as admin, there.http(headers=ann.bearer) as member:
        for weight in (50, 60, 70):
            await admin.put(_of(ann), json={"weight": weight})
            assert (await member.get("/api/quota")).json()["limits"]["weight"]["value"] == weight


def test_the_schema_shows_rules() -> None:
    """A rule in a request is the shape of a rule in an answer, with its bounds and its meaning."""
    schema = litestar().openapi_schema.to_schema()
    rule = schema["components"]["schemas"]["QuotaRule"]
    assert list(rule["properties"]) == list(LIMITS)
    assert rule["required"] == []
    weight = rule["properties"]["weight"]
    assert (weight["minimum"], weight["maximum"], weight["description"]) == (1, 10_000, "Percent of a normal share.")
    for path in ("default", "roles/{role}", "users/{user_id}"):
        body = schema["paths"][f"{RULES}/{path}"]["put"]["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": "#/components/schemas/QuotaRule"}
