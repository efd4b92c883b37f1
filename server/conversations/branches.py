"""Branches: the way from the root to a message, and what of it a model is given."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct


class Node(Struct, frozen=True):
    """A message without its text.

    Attributes:
        size_bytes: of the text.
    """

    id: UUID
    parent_id: UUID | None
    role: str
    state: str
    size_bytes: int


def branch_to(leaf: UUID, nodes: Mapping[UUID, Node]) -> list[Node]:
    """From the root to `leaf`, which is among the nodes. A parent that is missing, or a circle, ends it."""
    found: list[Node] = []
    seen: set[UUID] = set()
    at: UUID | None = leaf
    while at is not None and at not in seen and (node := nodes.get(at)) is not None:
        seen.add(at)
        found.append(node)
        at = node.parent_id
    found.reverse()
    return found


def told(branch: Sequence[Node]) -> list[Node]:
    """Those that a model is given: exchanges whose answer brought no text are left out, the last question is not."""
    kept: list[Node] = []
    for number, node in enumerate(branch):
        if number + 1 == len(branch):
            kept.append(node)
        elif node.role == "user":
            follows = branch[number + 1]
            if follows.role == "assistant" and follows.size_bytes > 0:
                kept.append(node)
        elif node.size_bytes > 0:
            kept.append(node)
    return kept


def messages_of(nodes: Sequence[Node], texts: Mapping[UUID, str]) -> list[dict[str, Any]]:
    """As /v1/chat/completions takes them."""
    return [{"role": node.role, "content": texts[node.id]} for node in nodes]
