"""What an engine is given at a time, and who says so.

An admin's number counts before the engine's own, that before what a calibration found, and that before the setting.
Admins see which of them it is: a number that nobody chose for this engine is a guess, and the first thing to look at
where it is slow or refuses requests.
"""

from collections.abc import Collection
from typing import Literal

from msgspec import Struct

from server.engines.kinds import EngineSpec
from server.engines.protocol import Engine

Origin = Literal["admin", "engine", "measured", "default"]


class Number(Struct, frozen=True):
    """A number that is in force.

    Attributes:
        value: 0 is no bound; null for slots that are reserved by the number of slots.
        origin: who said it: the admin, the engine, a calibration, or nobody.
        setting: the setting that a default comes from; null where it is what is assumed of the engine's kind.
    """

    value: int | None
    origin: Origin
    setting: str | None


class Numbers(Struct, frozen=True, kw_only=True):
    """Those of an engine: requests, prompt tokens in a step, tokens in memory, requests kept for light users."""

    slots: Number
    prefill_tokens: Number
    kv_tokens: Number
    reserved_slots: Number


class NumberDefaults(Struct, frozen=True, kw_only=True):
    """What the settings say. `reserved_slots` below 0 is by the number of slots."""

    prefill_tokens: int
    reserved_slots: int


def numbers_of(engine: Engine, spec: EngineSpec | None, defaults: NumberDefaults, knee: int | None = None) -> Numbers:
    """What is in force for an engine.

    Args:
        spec: None for one of the settings.
        knee: how many requests at a time a calibration found to be worth giving it.
    """
    reserved = None if defaults.reserved_slots < 0 else defaults.reserved_slots
    # What an adapter only takes to be so until it hears better; those of plugins need not say.
    assumed: Collection[str] = getattr(engine, "assumed", ("slots",))
    told_prefill, is_guess = engine.prefill_chunk_tokens, "prefill_tokens" in assumed
    return Numbers(
        slots=_number(
            None if spec is None else spec.slots,
            None if "slots" in assumed else engine.slots,
            Number(knee, "measured", None) if knee else Number(engine.slots, "default", "engine_slots"),
        ),
        prefill_tokens=_number(
            None if spec is None else spec.prefill_tokens,
            None if is_guess else told_prefill,
            Number(told_prefill, "default", None)
            if is_guess
            else Number(defaults.prefill_tokens, "default", "engine_prefill_tokens"),
        ),
        kv_tokens=_number(
            None if spec is None else spec.kv_tokens, engine.kv_tokens or None, Number(0, "default", None)
        ),
        reserved_slots=_number(
            None if spec is None else spec.reserved_slots, None, Number(reserved, "default", "reserved_slots")
        ),
    )


def _number(admins: int | None, engines: int | None, default: Number) -> Number:
    if admins is not None:
        return Number(admins, "admin", None)
    return default if engines is None else Number(engines, "engine", None)
