"""What was used."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base


class Usage(Base):
    """One row for every request that held a lease, whatever ended it.

    Partitioned by month of the id, which begins with its time. No foreign keys: the row outlives the person and the
    key. `started_at` is when Redis admitted it, by Redis' clock; durations count from the request's arrival at the
    gate. `first_token_ms` is NULL where no first token was seen (not streamed, or ended before). `pauses` is how often
    the answer gave up its slot and went on later, `paused_ms` how long that took. `council_id` is the council (a row of
    `council_runs`) that asked for it, `role` what it did there: leader, member, rank, judge, debate or chair.

    `placement` is `cloud` where somebody else's models answered: `engine` is the provider's name then, and
    `cost_micros` what it took, in millionths of the admin's currency (docs/cloud.md).

    `gpu_us` and `energy_mj` are its shares once they are settled (server/upkeep/settling.py); until then they follow
    from its neighbours (the function usage_shares).

    Outcomes: completed, cancelled (the client left), failed (the engine), revoked (somebody light
    needed the slot), abandoned (the server died).
    """

    __tablename__ = "usage"

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    key_id: Mapped[UUID | None]
    surface: Mapped[str]
    model: Mapped[str]
    engine: Mapped[str]
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    queue_ms: Mapped[int]
    first_token_ms: Mapped[int | None]
    total_ms: Mapped[int]
    pauses: Mapped[int] = mapped_column(server_default="0")
    paused_ms: Mapped[int] = mapped_column(server_default="0")
    council_id: Mapped[UUID | None]
    role: Mapped[str | None]
    outcome: Mapped[str]
    started_at: Mapped[datetime]
    placement: Mapped[str] = mapped_column(server_default="local")
    cost_micros: Mapped[int | None]
    gpu_us: Mapped[int | None]
    energy_mj: Mapped[int | None]

    __table_args__ = (
        Index("ix_usage_user_id_started_at", "user_id", "started_at"),
        {"postgresql_partition_by": "RANGE (request_id)"},
    )
