"""What left this box, over HTTP: one's own requests, a file of them, and counts for admins."""

import csv
import io
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from server.clock import SystemClock
from tests.boxes import Box
from tests.privacy.ledgers import a_send, come_back, leave

EGRESS, EXPORT, SUMMARY = "/api/egress", "/api/egress/export", "/api/admin/egress/summary"


async def test_ones_own_requests_that_left(box: Box) -> None:
    """The newest first, sends with their ends; nobody sees those of somebody else, an admin neither."""
    root, ann, ben = await box.person("root", "admin"), await box.person("ann"), await box.person("ben")
    now = SystemClock().now()
    first = await leave(box.database, a_send(ann.user.id), now)
    await come_back(box.database, first, now + timedelta(seconds=2))
    second = await leave(box.database, a_send(ann.user.id, form="whole", consent_id=None, findings={}), now)
    await leave(box.database, a_send(ben.user.id), now)
    async with box.http(headers=ann.bearer) as client:
        newest, oldest = (await client.get(EGRESS)).json()
        pages = [(await client.get(EGRESS, params={"limit": 1, "before": before})).json() for before in (3, 1)]
    assert oldest == {
        "seq": 1,
        "at": oldest["at"],
        "request_id": str(first.request_id),
        "conversation_id": str(first.conversation_id),
        "provider": "elsewhere",
        "model": "big",
        "policy_version": 3,
        "detectors": {"secrets": "1.5.0", "structured": "2.2.366"},
        "findings": {"PERSON": 2, "EMAIL": 1},
        "form": "pseudonymised",
        "is_consented": True,
        "body_bytes": 512,
        "sha256": "02" * 32,
        "reserved_micros": 100,
        "ended_at": oldest["ended_at"],
        "outcome": "completed",
        "answer_bytes": 2048,
        "input_tokens": 100,
        "output_tokens": 50,
        "spent_micros": 60,
    }
    assert datetime.fromisoformat(oldest["ended_at"]) == now + timedelta(seconds=2)
    assert (newest["request_id"], newest["outcome"], newest["is_consented"]) == (str(second.request_id), None, False)
    assert (newest["spent_micros"], newest["findings"]) == (None, {})
    assert [[row["seq"] for row in page] for page in pages] == [[1], []]
    async with box.http(headers=root.bearer) as admin:
        assert (await admin.get(EGRESS)).json() == []


async def test_a_file_of_it(box: Box) -> None:
    """All of it, for spreadsheets, where no text is a formula."""
    ann, ben = await box.person("ann"), await box.person("ben")
    now = SystemClock().now()
    entry = await leave(box.database, a_send(ann.user.id, model="=cmd()"), now)
    await leave(box.database, a_send(ben.user.id), now)
    async with box.http(headers=ann.bearer) as client:
        answer = await client.get(EXPORT)
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == f'attachment; filename="egress_{now.date()}.csv"'
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["seq"], row["model"], row["request_id"]) == ("1", "'=cmd()", str(entry.request_id))
    assert (row["findings"], row["outcome"], row["at"]) == ('{"EMAIL":1,"PERSON":2}', "", str(now))


async def test_counts_for_admins(box: Box) -> None:
    """By day, provider and person; what it was about, and in which conversation, is not among them."""
    root, ann, ben = await box.person("root", "admin"), await box.person("ann"), await box.person("ben")
    day = datetime(2026, 11, 10, 23, 59, tzinfo=UTC)
    for number in range(3):
        entry = await leave(box.database, a_send(ann.user.id), day)
        if number:
            await come_back(box.database, entry, day + timedelta(hours=1))
    whole = a_send(ben.user.id, form="whole", consent_id=None, findings={})
    await leave(box.database, whole, day)
    await leave(box.database, a_send(uuid4(), provider="another"), day + timedelta(minutes=2))
    async with box.http(headers=root.bearer) as admin:
        report = (await admin.get(SUMMARY, params={"from": "2026-11-01", "to": "2026-11-11"})).json()
        empty = (await admin.get(SUMMARY, params={"from": "2026-11-12", "to": "2026-11-12"})).json()
        wrong = await admin.get(SUMMARY, params={"from": "yesterday"})
    assert (report["from"], report["to"], empty["rows"]) == ("2026-11-01", "2026-11-11", [])
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "from")
    later, anns, bens = report["rows"]
    assert (later["day"], later["provider"], later["user"], later["open"]) == ("2026-11-11", "another", None, 1)
    assert anns == {
        "day": "2026-11-10",
        "provider": "elsewhere",
        "user_id": str(ann.user.id),
        "user": "ann",
        "requests": 3,
        "pseudonymised": 3,
        "consented": 3,
        "open": 1,
        "findings": 3,
        "body_bytes": 1536,
        "answer_bytes": 4096,
        "spent_micros": 120,
    }
    assert (bens["user"], bens["pseudonymised"], bens["consented"], bens["findings"]) == ("ben", 0, 0, 0)


async def test_who_may_not(box: Box) -> None:
    """Counts are for admins; bounds of a page are kept."""
    ann = await box.person("ann")
    async with box.http(headers=ann.bearer) as member, box.http() as stranger:
        assert (await member.get(SUMMARY)).status_code == 403
        for path in (EGRESS, EXPORT, SUMMARY):
            assert (await stranger.get(path)).status_code == 401
        for params in ({"limit": 0}, {"limit": 101}, {"before": 0}, {"before": "x"}):
            assert (await member.get(EGRESS, params=params)).status_code == 400, params
