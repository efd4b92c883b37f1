"""Usage over HTTP: reports of one's own and of everybody, files, and prices."""

import csv
import io
from datetime import timedelta
from typing import Any

import httpx
import pyarrow.parquet as pq

from server.clock import SystemClock
from tests.boxes import Box
from tests.usage.parts import request, use

NUMBERS = ("requests", "input_tokens", "output_tokens", "run_ms", "gpu_ms", "energy_mj", "cost")
PRICES = "/api/admin/prices"
LLAMA = f"{PRICES}/meta-llama/Llama-3:8b"


def refused(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and field of an error."""
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


async def test_a_report_of_ones_own_and_of_everybody(box: Box) -> None:
    """Each person is told of their own requests, an admin of all; the list of the newest ones goes on as it was."""
    root, ann, ben = await box.person("root", "admin"), await box.person("ann"), await box.person("ben")
    now = SystemClock().now() - timedelta(hours=1)
    today = now.date().isoformat()
    await use(
        box.database,
        request(now, of=ann.user.id, run_ms=2_000),
        request(now, of=ann.user.id, run_ms=2_000, model="n", engine="f"),
        request(now, of=ben.user.id, run_ms=2_000),
    )
    async with box.http(headers=root.bearer) as admin, box.http(headers=ann.bearer) as member:
        assert (await admin.put(f"{PRICES}/*", json={"input_per_million": 0.5, "output_per_million": "2"})).is_success
        # It holds from now on, and the requests were before.
        unpriced = (await member.get("/api/usage/report", params={"by": "", "from": today})).json()
        since = (now - timedelta(minutes=1)).isoformat()
        body = {"input_per_million": "100", "output_per_million": 200, "per_gpu_second": "0.5", "since": since}
        assert (await admin.put(f"{PRICES}/m", json=body)).is_success
        own = (await member.get("/api/usage/report", params={"by": "day,model", "from": today})).json()
        everybody = (await admin.get("/api/admin/usage", params={"by": "user", "from": today})).json()
        newest = (await member.get("/api/usage")).json()
    assert (unpriced["total"]["requests"], unpriced["total"]["cost"]) == (2, None)
    assert {name: own[name] for name in ("from", "tz", "by")} == {"from": today, "tz": "UTC", "by": ["day", "model"]}
    assert [[row[name] for name in ("day", "model", *NUMBERS)] for row in own["rows"]] == [
        [today, "m", 1, 10, 20, 2_000, 1_000, None, "0.505"],
        [today, "n", 1, 10, 20, 2_000, 2_000, None, None],
    ]
    assert own["total"] == {
        "requests": 2,
        "input_tokens": 20,
        "output_tokens": 40,
        "run_ms": 4_000,
        "gpu_ms": 3_000,
        "energy_mj": None,
        "cost": "0.505",
        "unpriced_requests": 1,
        "unmetered_requests": 2,
    }
    assert {(row["user"], row["user_id"], row["requests"]) for row in everybody["rows"]} == {
        ("ann", str(ann.user.id), 2),
        ("ben", str(ben.user.id), 1),
    }
    assert len(newest) == 2


async def test_a_real_request_is_in_the_report(box: Box) -> None:
    """From the key that asked to the engine that answered."""
    ann = await box.person("ann")
    body = {"model": "stand-in", "messages": [{"role": "user", "content": "hi"}]}
    async with box.http(headers=ann.bearer) as client:
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        (row,) = await box.usage(1)
        report = (await client.get("/api/usage/report", params={"by": "request,key,engine,council,placement"})).json()
    (group,) = report["rows"]
    assert (group["request_id"], group["key"], group["engine"]) == (str(row.request_id), "test", row.engine)
    assert (group["council"], group["placement"], group["output_tokens"]) == (None, "local", row.output_tokens)
    assert group["run_ms"] == max(0, row.total_ms - row.queue_ms)


async def test_reports_as_files(box: Box) -> None:
    """To be saved, under a name with the days; text of others is no formula in them."""
    root, ann = await box.person("root", "admin"), await box.person("ann")
    now = SystemClock().now() - timedelta(hours=1)
    await use(box.database, request(now, of=ann.user.id, model="=cmd|' /c calc'!A1"), request(now, of=root.user.id))
    days = {"from": now.date().isoformat()}
    async with box.http(headers=root.bearer) as admin, box.http(headers=ann.bearer) as member:
        text = await admin.get("/api/admin/usage/export", params={"by": "user,model", **days})
        own = await member.get("/api/usage/export", params={"by": "user,model", "format": "csv", **days})
        table = await admin.get("/api/admin/usage/export", params={"by": "model", "format": "parquet", **days})
    assert text.headers["content-type"] == "text/csv; charset=utf-8"
    assert text.headers["content-disposition"].startswith(f'attachment; filename="usage_{days["from"]}_')
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert {(row["user"], row["model"]) for row in rows} == {("ann", "'=cmd|' /c calc'!A1"), ("root", "m")}
    assert [row["user"] for row in csv.DictReader(io.StringIO(own.text))] == ["ann"]
    assert table.headers["content-disposition"].endswith('.parquet"')
    assert pq.read_table(io.BytesIO(table.content))["model"].to_pylist() == ["=cmd|' /c calc'!A1", "m"]


async def test_what_cannot_be_asked(box: Box) -> None:
    """400 and the parameter's name, for reports and files alike."""
    root = await box.person("root", "admin")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"by": "colour"}, "by"),
        ({"from": "2026-11-02", "to": "2026-11-01"}, "from"),
        ({"from": "2020-01-01"}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"to": "9999-12-31"}, "to"),
        ({"tz": "Mars/Olympus"}, "tz"),
    ]
    async with box.http(headers=root.bearer) as client:
        for path in ("/api/usage/report", "/api/usage/export", "/api/admin/usage", "/api/admin/usage/export"):
            for params, param in wrong:
                assert refused(await client.get(path, params=params)) == (400, "invalid_request", param), (path, params)
        assert (await client.get("/api/usage/export", params={"format": "xlsx"})).status_code == 400


async def test_prices_are_set_and_kept(box: Box) -> None:
    """Names of models have slashes; amounts read back as they were written; the log of changes has them."""
    root = await box.person("root", "admin")
    async with box.http(headers=root.bearer) as admin:
        first = await admin.put(LLAMA, json={"input_per_million": "0.10", "output_per_million": 1})
        assert first.json() == {
            "model": "meta-llama/Llama-3:8b",
            "input_per_million": "0.1",
            "output_per_million": "1",
            "per_gpu_second": None,
            "per_kwh": None,
            "until": None,
            "since": first.json()["since"],
            "set_by": str(root.user.id),
        }
        await admin.put(LLAMA, json={"input_per_million": "0.2", "output_per_million": "1", "per_kwh": "0.3"})
        assert [row["input_per_million"] for row in (await admin.get(PRICES)).json()] == ["0.2"]
        assert (await admin.delete(LLAMA)).status_code == 204
        assert refused(await admin.delete(LLAMA)) == (404, "price_not_found", None)
        assert (await admin.get(PRICES)).json() == []
        history = (await admin.get(PRICES, params={"history": True})).json()
        assert [row["input_per_million"] for row in history] == ["0.2", "0.1"]
        assert history[1]["until"] == history[0]["since"]
        log = (await admin.get("/api/admin/audit")).json()
    assert [row["action"] for row in log] == ["price.remove", "price.set", "price.set"]


async def test_prices_that_are_none(box: Box) -> None:
    """400 and the field's name; nothing is set."""
    root = await box.person("root", "admin")
    amounts = {"input_per_million": "1", "output_per_million": "1"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"input_per_million": "NaN"}, "input_per_million"),
        ({"output_per_million": -1}, "output_per_million"),
        ({"per_kwh": "1e9"}, "per_kwh"),
        ({"per_gpu_second": "0.0000000001"}, "per_gpu_second"),
        ({"since": "2999-01-01T00:00:00Z"}, "since"),
        ({"since": "1999-12-31T00:00:00Z"}, "since"),
    ]
    async with box.http(headers=root.bearer) as admin:
        for change, param in wrong:
            answer = await admin.put(f"{PRICES}/m", json=amounts | change)
            assert refused(answer) == (400, "invalid_request", param), change
        for body in ({}, {"input_per_million": "1"}, amounts | {"colour": 1}, amounts | {"per_kwh": "much"}):
            assert (await admin.put(f"{PRICES}/m", json=body)).status_code == 400, body
        # A time without a zone is anybody's.
        assert (await admin.put(f"{PRICES}/m", json=amounts | {"since": "2026-01-01T00:00:00"})).status_code == 400
        assert refused(await admin.put(f"{PRICES}/%00", json=amounts)) == (400, "invalid_request", "model")
        assert (await admin.get(PRICES, params={"history": True})).json() == []


async def test_members_see_no_one_elses(box: Box) -> None:
    """Reports of everybody and prices are for admins; without a key there is nothing at all."""
    ann = await box.person("ann")
    asks = [
        *(("GET", path) for path in ("/api/admin/usage", "/api/admin/usage/export", PRICES)),
        *((method, LLAMA) for method in ("PUT", "DELETE")),
    ]
    async with box.http(headers=ann.bearer) as member, box.http() as stranger:
        for method, path in asks:
            answer = await member.request(method, path, json={"input_per_million": "1", "output_per_million": "1"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_only"), path
        for path in ("/api/usage/report", "/api/usage/export", *(path for _, path in asks)):
            assert (await stranger.get(path)).status_code in {401, 405}, path
