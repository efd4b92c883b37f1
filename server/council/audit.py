"""Who changed what of councils, in the log that everything else has too."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from server.clock import uuid7
from server.db.models import AuditEntry
from server.messages import Principal


def audited(
    actor: Principal,
    now: datetime,
    action: str,
    subject: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """An entry of the log, to be added in the transaction of the change itself."""
    return AuditEntry(
        id=uuid7(now),
        at=now,
        actor_id=actor.id,
        actor_name=actor.name,
        action=action,
        subject=subject,
        before=None if before is None else dict(before),
        after=None if after is None else dict(after),
    )
