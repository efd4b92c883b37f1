"""What usage costs."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Numeric
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Base


class PriceRow(Base):
    """What a model costs from `since` on and before `until` (NULL: it is in force); periods of a model do not overlap.

    `model` `*` is every model without a price of its own. Amounts are in whatever currency the admin means.
    `set_by` is NULL for the command line, and no foreign key: the price outlives whoever set it.
    """

    __tablename__ = "prices"
    __table_args__ = (
        CheckConstraint("since < until", name="period"),
        Index("ix_prices_model_since", "model", "since", unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str]
    since: Mapped[datetime]
    until: Mapped[datetime | None]
    input_per_million: Mapped[Decimal] = mapped_column(Numeric(18, 9))
    output_per_million: Mapped[Decimal] = mapped_column(Numeric(18, 9))
    per_gpu_second: Mapped[Decimal | None] = mapped_column(Numeric(18, 9))
    per_kwh: Mapped[Decimal | None] = mapped_column(Numeric(18, 9))
    set_by: Mapped[UUID | None]
