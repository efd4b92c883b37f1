"""What the settings say of engines, in the words of those who use it."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from msgspec.structs import replace

from quotas.cost import Cost, read_costs
from quotas.window import Window, window_of
from server.engines.isolation import Pins
from server.engines.kinds import Defaults, EngineSpec, load_kinds, read_spec
from server.engines.numbers import NumberDefaults, numbers_of
from server.engines.protocol import Engine
from server.engines.registry import API_KEY_CHARACTERS_MAX
from server.errors import InvalidRequest, StartError
from server.settings import Settings


def defaults_from(settings: Settings, pins: Pins | None = None) -> Defaults:
    """What holds for engines that do not say otherwise."""
    return Defaults(
        slots=settings.engine_slots,
        silence_ms_max=settings.engine_silence_ms_max,
        stall_ms_max=settings.engine_stall_ms_max,
        pins=pins,
    )


def engines_from(settings: Settings) -> list[Engine]:
    """An adapter for every engine in the settings, with its key. Raises StartError, which never quotes a key."""
    kinds, defaults = load_kinds(), defaults_from(settings)
    try:
        specs = [read_spec(text) for text in settings.engines]
    except InvalidRequest as error:
        raise StartError(f"The setting engines is wrong: {error.message}") from None
    if unknown := [spec.kind for spec in specs if spec.kind not in kinds]:
        raise StartError(f"There is no kind of engine that is called {unknown[0]}: {', '.join(sorted(kinds))}.")
    if len({spec.name for spec in specs}) < len(specs):
        raise StartError("The setting engines names two engines alike.")
    return [kinds[spec.kind](spec, defaults) for spec in _with_keys(specs, settings.engine_keys)]


def _with_keys(specs: Sequence[EngineSpec], written: Sequence[str]) -> Sequence[EngineSpec]:
    """With the keys of `engine_keys`. What is wrong is told by its place in the list, since all of it may be a key."""
    keys = dict[str, str]()
    for place, text in enumerate(written, start=1):
        # A name that is made of a URL may hold a = itself.
        name = max((spec.name for spec in specs if text.startswith(f"{spec.name}=")), key=len, default=None)
        if name is None:
            names = ", ".join(spec.name for spec in specs) or "there are none"
            raise StartError(
                f"Entry {place} of the setting engine_keys is not written as name=key with the name of an engine "
                f"of the setting engines: {names}."
            )
        key = text.removeprefix(f"{name}=")
        if not key or len(key) > API_KEY_CHARACTERS_MAX or not (key.isascii() and key.isprintable()):
            raise StartError(
                f"The key of {name} in the setting engine_keys is empty, or has characters that no header can carry."
            )
        if name in keys:
            raise StartError(f"The setting engine_keys has two keys for {name}.")
        keys[name] = key
    if both := [spec.name for spec in specs if spec.name in keys and "@" in urlsplit(spec.url).netloc]:
        raise StartError(f"The engine {both[0]} has a key in engine_keys and a password in its URL: one is enough.")
    return [replace(spec, api_key=keys.get(spec.name, "")) for spec in specs]


def window_from(settings: Settings, engine: Engine, spec: EngineSpec | None = None, knee: int | None = None) -> Window:
    """How much an engine is given at a time: what its admin says, else what it says itself, else the settings.

    Args:
        knee: what a calibration found to be worth giving it, in the place of the setting.
    """
    found = numbers_of(engine, spec, number_defaults_from(settings), knee)
    return window_of(
        found.slots.value or 1,
        reserved_slots=found.reserved_slots.value,
        prefill_chunk_tokens=found.prefill_tokens.value or 0,
        kv_tokens=found.kv_tokens.value or 0,
        reserve_percent_max=settings.reserve_percent_max,
        books_whole_answers=engine.books_whole_answers,
    )


def number_defaults_from(settings: Settings) -> NumberDefaults:
    """What holds where neither admin nor engine says a number."""
    return NumberDefaults(prefill_tokens=settings.engine_prefill_tokens, reserved_slots=settings.reserved_slots)


def costs_from(settings: Settings) -> Mapping[str, Cost]:
    """What tokens cost, by model. Raises StartError."""
    try:
        return read_costs(settings.costs)
    except ValueError as error:
        raise StartError(
            f"The setting costs holds {error}, which is not written as model=input:output (two numbers from 1 on)."
        ) from None
