"""What calibrations decide, joined with the fleet: the costs and windows that follow, and who measures."""

from collections.abc import Awaitable, Callable

from server.clock import Clock
from server.db.session import Database
from server.engines.calibrating import Calibrating
from server.engines.calibrations import Calibrations
from server.engines.fleet import Fleet, OnWindow
from server.engines.kinds import EngineSpec
from server.engines.numbers import Numbers
from server.engines.protocol import Engine
from server.engines.residents import Residents


def tuned(  # noqa: PLR0913 (the parts that it joins)
    fleet: Fleet,
    *,
    residents: Residents,
    database: Database,
    clock: Clock,
    hardware: Callable[[], str],
    numbers: Callable[[Engine, EngineSpec | None], Numbers],
    on_window: OnWindow,
    load: Callable[[str], Awaitable[tuple[int, int]]],
    nonce: Callable[[], str],
    server_version: str,
) -> tuple[Calibrations, Calibrating]:
    """What is known of how fast the fleet's engines are, and who measures it.

    Args:
        numbers: what an engine is given at a time, and who says so, without what was measured.
        on_window: told of each engine when what is in force has changed.
    """
    pool, spec = fleet.pool, fleet.roster.spec

    def slots(name: str) -> int | None:
        engine = pool.engine(name)
        found = None if engine is None else numbers(engine, spec(name)).slots
        return None if found is None or found.origin == "default" else found.value

    def version(name: str) -> str | None:
        # Adapters of plugins need not tell one.
        return None if (engine := pool.engine(name)) is None else str(getattr(engine, "version", ""))

    def windows() -> None:
        for name in pool.names:
            engine, health = pool.engine(name), pool.health(name)
            if engine is not None and health is not None and health.is_up:
                on_window(engine, spec(name))

    store = Calibrations(
        database, clock, hardware=hardware, version=version, server_version=server_version, on_change=windows
    )
    calibrating = Calibrating(
        pool=pool,
        residency=fleet.residency,
        residents=residents,
        store=store,
        database=database,
        clock=clock,
        load=load,
        slots=slots,
        nonce=nonce,
    )
    return store, calibrating
