"""Which models of an engine can answer without being loaded first.

- An engine whose models the server moves: what the residency says.
- Ollama: what it says itself.
- vLLM, SGLang, text-generation-inference, and a llama-server that has slots (a router has none): all that they list.
- Of any other nobody knows: it may load what it is asked for, and throw out what it had. Only the model that answered
  last, not long ago, is taken to be there.
"""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

from server.clock import Clock
from server.db.models import Usage
from server.db.session import Database
from server.engines.ollama import Ollama
from server.engines.openai_compatible import OpenAICompatible
from server.engines.places import Loader, State
from server.engines.pool import Pool

# Engines that unload by themselves wait longer.
STAYS = timedelta(minutes=4)
ALWAYS = frozenset({"vllm", "sglang", "tgi"})


class Residents:
    """What is in memory now.

    Args:
        moves: whether the server loads and unloads the models of an engine.
    """

    def __init__(
        self, pool: Pool, residency: Loader, database: Database, clock: Clock, moves: Callable[[str], bool]
    ) -> None:
        self._pool = pool
        self._residency = residency
        self._database = database
        self._clock = clock
        self._moves = moves

    async def of(self, name: str) -> list[str]:
        """Models of an engine that is well; none of one that is not.

        Raises:
            EngineFailed: the engine does not tell.
            Unavailable: Postgres is away.
        """
        engine, health = self._pool.engine(name), self._pool.health(name)
        if engine is None or health is None or not health.is_up or health.is_draining or health.breaker != "closed":
            return []
        listed = [model.id for model in health.models]
        placed = {each.model: each.state for each in self._residency.view() if each.engine == name}
        if placed or self._moves(name):
            return [model for model in listed if placed.get(model) is State.RESIDENT]
        if isinstance(engine, Ollama):
            states = await engine.states()
            return [model for model in listed if states.get(model) is State.RESIDENT]
        if isinstance(engine, OpenAICompatible):
            if engine.dialect in ALWAYS:
                return listed
            if "slots" not in engine.assumed:
                return [] if engine.is_asleep else listed
        last = await self._last_asked(name)
        return [model for model in listed if model == last]

    async def _last_asked(self, engine: str) -> str | None:
        # Ids of requests begin with their time, so that the primary key finds the youngest.
        since_ms = int((self._clock.now() - STAYS).timestamp() * 1000)
        query = (
            select(Usage.model)
            .where(Usage.request_id >= UUID(int=since_ms << 80), Usage.engine == engine, Usage.outcome == "completed")
            .order_by(Usage.request_id.desc())
            .limit(1)
        )
        async with self._database.transaction(everybody=True) as session:
            return await session.scalar(query)
