"""Rules without a server: ids, texts, branches, cursors, and bytes with many readers."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.clock import SystemClock, uuid7
from server.conversations.branches import Node, branch_to, told
from server.conversations.ids import id_after
from server.conversations.listing import Place, cursor_of, place_of
from server.conversations.running import ANSWER_BYTES_MAX, PIECE_BYTES, Running
from server.conversations.texts import TITLE_CHARS_MAX, mended, name, storable, title_of
from server.errors import EngineFailed, InvalidRequest

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@settings(deadline=None)
@given(st.lists(st.integers(-86_400_000, 86_400_000), min_size=2, max_size=20))
def test_ids_go_up_though_the_clock_does_not(steps_ms: list[int]) -> None:
    """And they stay UUIDs of version 7."""
    made = [uuid7(NOW)]
    for step_ms in steps_ms:
        made.append(id_after(NOW + timedelta(milliseconds=step_ms), *made))
    assert made == sorted(set(made))
    assert {(each.version, each.variant) for each in made} == {(7, "specified in RFC 4122")}


def test_ids_after_the_same_one_differ() -> None:
    """Two branches may begin in one millisecond."""
    last = id_after(NOW + timedelta(days=1))
    assert len({id_after(NOW, last) for _ in range(100)}) == 100


@settings(deadline=None)
@given(st.text(alphabet=st.characters()))
def test_any_text_is_mended_or_refused(text: str) -> None:
    """A machine's is mended, a person's is told what is wrong."""
    mended(text).encode()
    assert "\0" not in mended(text)
    if mended(text) == text:
        assert storable(text, "content") == text
    else:
        with pytest.raises(InvalidRequest, match="content"):
            storable(text, "content")


@settings(deadline=None)
@given(st.text())
def test_a_title_is_one_short_line(question: str) -> None:
    """The first one that says something."""
    title = title_of(question)
    assert len(title) <= TITLE_CHARS_MAX
    assert len(title.splitlines()) <= 1
    assert bool(title) == any(line.strip() for line in question.splitlines())


def test_titles() -> None:
    """Shortened with a sign that they are."""
    assert title_of("\n\n  What   is this?\nand more") == "What is this?"
    assert title_of("word " * 40).endswith("…")
    with pytest.raises(InvalidRequest):
        name("x" * 201, "title")


@settings(deadline=None)
@given(st.booleans(), st.datetimes(datetime(1, 1, 2), datetime(9999, 1, 1)), st.uuids())  # noqa: DTZ001
def test_cursors_come_back_as_they_went(is_pinned: bool, at: datetime, conversation_id: UUID) -> None:
    """To the microsecond."""
    place = Place(is_pinned, at.replace(tzinfo=UTC), conversation_id)
    assert place_of(cursor_of(place)) == place


@settings(deadline=None)
@given(st.text(max_size=80))
def test_other_cursors_are_refused(cursor: str) -> None:
    """With a sentence."""
    with pytest.raises(InvalidRequest, match="before"):
        place_of(cursor)


def _nodes(*rows: tuple[int, int | None, str, int]) -> dict[UUID, Node]:
    def of(number: int | None) -> UUID | None:
        return None if number is None else UUID(int=number)

    return {
        UUID(int=number): Node(UUID(int=number), of(parent), role, "complete", size)
        for number, parent, role, size in rows
    }


def test_a_branch_is_the_way_from_the_root() -> None:
    """A circle, which only a broken table could hold, ends it."""
    nodes = _nodes((1, None, "user", 1), (2, 1, "assistant", 1), (3, 1, "assistant", 1), (4, 3, "user", 1))
    assert [node.id.int for node in branch_to(UUID(int=4), nodes)] == [1, 3, 4]
    circle = _nodes((1, 2, "user", 1), (2, 1, "assistant", 1))
    assert len(branch_to(UUID(int=2), circle)) == 2


def test_exchanges_without_an_answer_are_not_told() -> None:
    """The last question is, and so is what stands alone."""
    branch = list(
        _nodes(
            (1, None, "system", 3),
            (2, 1, "user", 3),
            (3, 2, "assistant", 0),
            (4, 3, "user", 3),
            (5, 4, "assistant", 3),
            (6, 5, "user", 3),
            (7, 6, "user", 3),
        ).values()
    )
    assert [node.id.int for node in told(branch)] == [1, 4, 5, 7]


def _running() -> Running:
    return Running(UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4), SystemClock())


async def test_readers_get_everything_whenever_they_come() -> None:
    """One that is slow or leaves takes nothing from the others."""
    running = _running()
    await running.write(b"one ")
    slow, leaving = running.follow(), running.follow()
    assert await anext(slow) == await anext(leaving) == b"one "
    await leaving.aclose()
    reading = asyncio.create_task(_all(running))
    for _ in range(3):
        await running.write(b"x" * PIECE_BYTES)
    running.end("complete")
    late = await _all(running)
    assert await reading == late == b"one " + b"x" * 3 * PIECE_BYTES
    assert len(b"".join([part async for part in slow])) == 3 * PIECE_BYTES


async def _all(running: Running) -> bytes:
    return b"".join([part async for part in running.follow()])


async def test_an_answer_that_grows_without_end_is_refused() -> None:
    """What came before stays, and its end can still be told."""
    running = _running()
    await running.write(b"x" * (ANSWER_BYTES_MAX - 1))
    with pytest.raises(EngineFailed) as refused:
        await running.write(b"xx")
    assert refused.value.code == "answer_too_large"
    running.end("failed", refused.value.message)
    assert len(await _all(running)) == ANSWER_BYTES_MAX - 1
