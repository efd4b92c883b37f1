"""Pseudonyms in the place of personal data: the exact body that leaves then, and the way back.

The words themselves are server/privacy's; here they meet a body, a person and a conversation. Two people, and two
conversations of one, never share a pseudonym for the same value. Replacing is arithmetic on long texts, so it is done
in a thread.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from server.cloud.deciding import Replace, Replaced
from server.cloud.marking import Restores
from server.privacy.findings import Finding
from server.privacy.payload import Part, with_texts
from server.privacy.pseudonyms import Pseudonyms, leaks
from server.privacy.restoring import Restorer


def replacing(key: bytes | None) -> Replace:
    """How bodies of this box are changed.

    Args:
        key: 32 bytes that nobody else has; None: the box has no encryption key, and nothing can be replaced.
    """

    async def replaced(
        user_id: UUID, place: str, body: dict[str, Any], parts: Sequence[Part], findings: Sequence[Finding]
    ) -> Replaced:
        if key is None:
            raise ValueError("There is no encryption key.")
        return await asyncio.to_thread(_replaced, Pseudonyms(key, f"{user_id}/{place}"), body, parts, findings)

    return replaced


def _replaced(
    pseudonyms: Pseudonyms, body: dict[str, Any], parts: Sequence[Part], findings: Sequence[Finding]
) -> Replaced:
    new, known = pseudonyms.replaced(parts, findings)
    changed = msgspec.json.encode(with_texts(body, parts, [part.text for part in new]))
    if leaks(known, changed):
        raise ValueError("Something that was to be replaced is still there.")

    def restorer(is_json: bool) -> Restores:  # noqa: FBT001 (a callable takes no names)
        return Restorer(known, in_json=is_json)

    return Replaced(changed, restorer)
