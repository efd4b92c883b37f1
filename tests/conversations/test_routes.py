"""Every route, for its person and for everybody else, and what it says to bad input."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select

from server.conversations.answers import RUNNING_MAX
from server.db.models import Message
from tests.conversations.conftest import Writer, ids
from tests.conversations.test_files import chatgpt, open_webui
from tests.stand_ins.openai_engine import MODEL, Order, saying

PLACE = "/api/conversations"


async def _listed(writer: Writer, **query: Any) -> dict[str, Any]:
    answer = await writer.http.get(PLACE, params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_another_persons_conversation_is_not_there(ann: Writer, bob: Writer) -> None:
    """Not even its existence is told: it is as if the id had been made up."""
    mine = await ann.begin(title="mine")
    question, answer = ids(await ann.ask(mine, "a secret"))
    place = f"{PLACE}/{mine}"
    asked = {"parent_id": answer, "content": "and?", "model": MODEL}
    tries: list[tuple[str, str, Any]] = [
        ("GET", place, None),
        ("PATCH", place, {"title": "bob's"}),
        ("DELETE", place, None),
        ("GET", f"{place}/export", None),
        ("POST", f"{place}/messages", asked),
        ("POST", f"{place}/messages/{question}/answers", {"model": MODEL}),
        ("GET", f"{place}/messages/{answer}/stream", None),
        ("POST", f"{place}/messages/{answer}/stop", None),
    ]
    for method, where, body in tries:
        told = await bob.http.request(method, where, json=body)
        made_up = await bob.http.request(method, where.replace(mine, str(uuid4())), json=body)
        assert (told.status_code, told.json()) == (404, made_up.json()), where
    his = await bob.begin(title="his")
    for parent in (question, answer):
        asked = {"parent_id": parent, "content": "and?", "model": MODEL}
        assert (await bob.http.post(f"{PLACE}/{his}/messages", json=asked)).status_code == 404
        assert (await bob.http.patch(f"{PLACE}/{his}", json={"leaf_id": parent})).status_code == 404
    assert [each["title"] for each in (await _listed(bob))["conversations"]] == ["his"]
    assert (await _listed(bob, search="secret"))["conversations"] == []
    found = await ann.read(mine)
    assert (found["title"], len(found["messages"])) == ("mine", 2)
    async with ann.box.http() as nobody:
        assert (await nobody.get(place)).status_code == 401


async def test_the_list_is_paged_and_stays_in_order(ann: Writer) -> None:
    """Pinned ones first, then the newest; no page shows one twice, whatever is changed in between."""
    made = [await ann.begin(title=str(number)) for number in range(7)]
    for number in (1, 3):
        assert (await ann.http.patch(f"{PLACE}/{made[number]}", json={"pinned": True})).json()["pinned"]
    seen: list[str] = []
    before: dict[str, str] = {}
    while True:
        page = await _listed(ann, limit=2, **before)
        seen += [each["title"] for each in page["conversations"]]
        if page["next"] is None:
            break
        before = {"before": page["next"]}
        await ann.http.patch(f"{PLACE}/{made[0]}", json={"title": "0"})
    assert seen == ["3", "1", "6", "5", "4", "2", "0"]
    assert (await ann.http.get(PLACE, params={"before": "nonsense"})).status_code == 400
    await ann.http.patch(f"{PLACE}/{made[3]}", json={"pinned": False})
    assert [each["title"] for each in (await _listed(ann, limit=2))["conversations"]] == ["1", "6"]


async def test_a_search_finds_titles_and_messages(ann: Writer, order: Order) -> None:
    """With an excerpt; any text may be searched for."""
    order.behaviour = saying("Elephants never forget a face")
    bread, animals = await ann.begin(title="Bread"), await ann.begin()
    await ann.ask(bread, "How do I bake rye bread?")
    await ann.ask(animals, "Which animals are clever?")
    await ann.begin(title="Elephants")
    await ann.settled()
    found = {each["title"]: each["excerpt"] for each in (await _listed(ann, search="elephants"))["conversations"]}
    assert set(found) == {"Bread", "Which animals are clever?", "Elephants"}
    assert "«Elephants» never forget" in found["Bread"]
    assert found["Elephants"] == "«Elephants»"
    assert [each["id"] for each in (await _listed(ann, search='"rye bread" -clever'))["conversations"]] == [bread]
    page = await _listed(ann, search="elephants", limit=2)
    rest = await _listed(ann, search="elephants", limit=2, before=page["next"])
    assert len({each["id"] for each in page["conversations"] + rest["conversations"]}) == 3
    for odd in ("%", "'", "\\", "a & | !b", "((", ":*", "🦣", "«", "x" * 500, " "):
        assert (await ann.http.get(PLACE, params={"search": odd})).status_code == 200, odd
    for bad in ("a\0b", "x" * 501):
        assert (await ann.http.get(PLACE, params={"search": bad})).status_code == 400


BAD: list[tuple[bytes, int, str | None]] = [
    (b'{"parent_id": null, "content": "a\\u0000b", "model": "m"}', 400, "nul"),
    (b'{"parent_id": null, "content": "\\ud800", "model": "m"}', 400, None),
    (b'{"parent_id": null, "content": "\xed\xa0\x80", "model": "m"}', 400, None),
    (b'{"parent_id": null, "content": " ", "model": "m"}', 400, "invalid_request"),
    (b'{"parent_id": "x", "content": "a", "model": "m"}', 400, None),
    (b'{"parent_id": null, "content": ["a"], "model": "m"}', 400, None),
    (b'{"parent_id": null, "content": "a", "model": "m", "options": {"stream": false}}', 400, "invalid_request"),
    (b'{"parent_id": null, "content": "a", "model": "m", "options": {"n": 2}}', 400, "invalid_request"),
    (b'{"parent_id": null, "content": "a", "model": "m", "options": {"tools": [1]}}', 400, "invalid_request"),
    (b'{"parent_id": null, "content": "a", "model": "m", "options": {"top_p": "x"}}', 400, "invalid_request"),
    (b'{"parent_id": null, "content": "a", "model": "m\\u0000"}', 400, "nul"),
    (b"[" * 100_000, 400, None),
    (b'{"parent_id": null, "content": "' + b"x" * (17 << 20) + b'", "model": "m"}', 413, None),
]


async def test_bad_questions_are_refused(ann: Writer) -> None:
    """Nothing is stored of them."""
    conversation = await ann.begin()
    as_json = {"content-type": "application/json"}
    for body, status, code in BAD:
        answer = await ann.http.post(f"{PLACE}/{conversation}/messages", content=body, headers=as_json)
        assert answer.status_code == status, (body[:100], answer.text)
        assert code is None or answer.json()["error"]["code"] == code
    assert (await ann.read(conversation))["messages"] == []


async def test_a_nul_in_an_answer_is_replaced(ann: Writer, order: Order) -> None:
    """The stream brings it as it is; what is kept has U+FFFD in its place."""
    order.behaviour = saying("one\0two")
    conversation = await ann.begin()
    await ann.ask(conversation, "one")
    assert (await ann.read(conversation))["messages"][-1]["content"] == "one\ufffdtwo"


async def test_many_answers_may_run_and_one_person_has_a_bound(ann: Writer, order: Order) -> None:
    """Two in one conversation are two branches; what is removed while it runs leaves its engine at once."""
    order.held_after = 1
    order.hold.clear()
    conversation = await ann.begin()
    async with ann.asking(conversation, "one") as first, ann.asking(conversation, "two") as second:
        one, two = ids(await first.until("word0")), ids(await second.until("word0"))
        async with ann.asking(conversation, "under it", one[1]) as refused:
            assert (refused.response.status_code, json.loads(await refused.response.aread())["error"]["code"]) == (
                409,
                "still_running",
            )
        other = await ann.begin()
        asking = [asyncio.create_task(ann.ask(other, str(number))) for number in range(RUNNING_MAX - 2)]
        await _until_running(ann, other, RUNNING_MAX - 2)
        async with ann.asking(other, "one too many") as refused:
            assert refused.response.status_code == 429
        messages = {each["id"]: each for each in (await ann.read(conversation))["messages"]}
        assert messages[one[0]]["parent_id"] is messages[two[0]]["parent_id"] is None
        assert [each["running"] for each in (await _listed(ann))["conversations"]] == [True, True]
        assert (await ann.http.delete(f"{PLACE}/{conversation}")).status_code == 204
        assert (await first.rest())[-1] == (await second.rest())[-1] == "[DONE]"
    await asyncio.wait_for(order.gone.wait(), 5)
    assert (await ann.http.get(f"{PLACE}/{conversation}")).status_code == 404
    async with ann.box.database.transaction(of=ann.person.user.id) as session:
        left = await session.scalar(select(func.count()).where(Message.conversation_id == UUID(conversation)))
    assert left == 0
    order.hold.set()
    assert all("[DONE]" in events for events in await asyncio.gather(*asking))


async def _until_running(writer: Writer, conversation: str, count: int) -> None:
    async with asyncio.timeout(20):
        while len((await writer.read(conversation))["messages"]) < 2 * count:
            await writer.box.clock.sleep_ms(20)


async def test_what_may_leave_goes_with_the_file(ann: Writer, bob: Writer) -> None:
    """A private conversation is imported as one; a word that nobody knows means private, none means none."""
    for said, meant in (("private", "private"), ("ask", "ask"), (None, None), ("whatever", "private"), (7, "private")):
        file = {"format": "wirthforge", "version": 1, "title": "Diary", "cloud": said, "messages": []}
        file["messages"] = [{"id": "1", "parent_id": None, "role": "user", "content": "mine"}]
        assert (await ann.http.post(f"{PLACE}/import", content=json.dumps(file).encode())).status_code == 200
        newest = (await _listed(ann))["conversations"][0]
        assert (await ann.read(newest["id"]))["cloud"] == meant
        export = await ann.http.get(f"{PLACE}/{newest['id']}/export")
        assert export.json()["cloud"] == meant
        await bob.http.post(f"{PLACE}/import", content=export.content)
        assert (await bob.read((await _listed(bob))["conversations"][0]["id"]))["cloud"] == meant


async def test_files_are_imported_and_exported(ann: Writer, bob: Writer) -> None:
    """The good ones, whatever stands between them; what was exported can be imported by somebody else."""
    broken = chatgpt(title="Circle")
    broken["mapping"]["q1"]["parent"] = "a1"
    file = json.dumps([chatgpt(), broken, 7, open_webui()]).encode()[:-1] + b', {"title": "cut'
    answer = await ann.http.post(f"{PLACE}/import", content=file)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["imported"], told["messages"]) == (2, 6)
    assert [each["title"] for each in told["problems"]] == ["Circle", ""]
    listed = (await _listed(ann))["conversations"]
    assert [(each["title"], each["pinned"], each["created_at"][:4]) for each in listed] == [
        ("Sums", True, "2023"),
        ("Greetings", False, "2023"),
    ]
    greetings = await ann.read(listed[1]["id"])
    assert [each["content"] for each in greetings["messages"]] == ["hello", "good day", "hello, edited", "good evening"]
    assert greetings["leaf_id"] == greetings["messages"][-1]["id"]
    export = await ann.http.get(f"{PLACE}/{greetings['id']}/export")
    assert export.headers["content-disposition"].startswith('attachment; filename="Greetings.json"')
    assert (await bob.http.post(f"{PLACE}/import", content=export.content)).json()["messages"] == 4
    his = await bob.read((await _listed(bob))["conversations"][0]["id"])
    kept = ("role", "content", "model", "state", "created_at")
    assert [[each[name] for name in kept] for each in his["messages"]] == [
        [each[name] for name in kept] for each in greetings["messages"]
    ]
    markdown = await ann.http.get(f"{PLACE}/{greetings['id']}/export", params={"format": "markdown"})
    assert markdown.text == "# Greetings\n\n## You\n\nhello, edited\n\n## Answer (gpt-4o)\n\ngood evening\n"
    for nonsense in (b"", b"hello", b'"text"', b"12"):
        assert (await ann.http.post(f"{PLACE}/import", content=nonsense)).status_code == 400
