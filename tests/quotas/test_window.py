"""How much an engine is given, by what it is."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotas.window import RESERVED_SLOTS_MAX, STANDING_SLOTS_MIN, Window, window_of


@pytest.mark.parametrize(
    ("slots", "reserved"),
    [(1, 0), (2, 1), (4, 1), (33, 1), (34, 2), (66, 2), (67, 3), (100, 3), (101, 4), (128, 4), (1_000, 4)],
)
def test_some_slots_are_kept(slots: int, reserved: int) -> None:
    """One of a few, a few of many and those always; an engine with one slot keeps none."""
    window = window_of(slots)
    assert (window.slots, window.reserved_slots) == (slots, reserved)
    assert window.is_reserve_standing == (slots >= STANDING_SLOTS_MIN)


@given(st.integers(1, 10_000), st.none() | st.integers(0, 10_000))
def test_there_is_always_a_slot_for_everybody(slots: int, wanted: int | None) -> None:
    """Whatever an admin wants to keep, one slot remains, and by itself a box keeps few."""
    window = window_of(slots, reserved_slots=wanted)
    assert 0 <= window.reserved_slots < slots
    if wanted is None:
        assert window.reserved_slots <= RESERVED_SLOTS_MAX
        assert window.is_reserve_standing == (slots >= STANDING_SLOTS_MIN)
    else:
        assert window.reserved_slots == min(wanted, slots - 1)


@given(
    st.builds(Window, slots=st.integers(0, 99), kv_tokens=st.integers(0, 1 << 40), books_whole_answers=st.booleans())
)
def test_redis_is_told_every_gate(window: Window) -> None:
    """By its name, as whole numbers."""
    flat = window.fields()
    told = dict(zip(flat[::2], flat[1::2], strict=True))
    assert told == {field.name: int(getattr(window, field.name)) for field in fields(Window)}
    assert all(type(value) is int for value in told.values())


def test_what_is_said_is_kept() -> None:
    """Prefill, memory and the way of reserving go into the window as they are."""
    window = window_of(8, prefill_chunk_tokens=2_048, kv_tokens=50_000, books_whole_answers=True)
    assert (window.prefill_tokens_max, window.kv_tokens, window.books_whole_answers) == (1_024, 50_000, True)
    assert (window_of(8).prefill_tokens_max, window_of(8).kv_tokens) == (0, 0)
