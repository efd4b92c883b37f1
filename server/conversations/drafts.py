"""Conversations as they come out of a file, before they are stored: a tree in the order in which it is written.

Files hold nodes that are no messages (roots, calls of tools, empty ones). These are left out, and what follows them
follows what came before them. A tree that is none is refused: a parent that the file does not hold, a circle.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from server.privacy.modes import Wish

MESSAGES_MAX = 50_000
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
# Of a message's name, in a sentence.
KEY_CHARS_MAX = 40
# Milliseconds and nanoseconds are told apart from seconds by their size: 10**11 s is the year 5138.
SECONDS_MAX, MILLISECONDS_MAX = 10**11, 10**14


class Broken(Exception):
    """A conversation that cannot be imported; says why."""


class Draft(Struct, frozen=True, kw_only=True):
    """A message.

    Attributes:
        key, parent: its name in the file, and that of what it follows.
    """

    key: str
    parent: str | None
    role: str
    content: str
    thinking: str = ""
    model: str = ""
    state: str = "complete"
    created_at: datetime | None = None


class DraftConversation(Struct, frozen=True, kw_only=True):
    """A conversation; messages come after what they follow.

    Attributes:
        source: what wrote the file.
        leaf: the last message of the branch that was looked at.
        cloud: what may leave of it; None: as its person's rules have it.
    """

    source: str
    title: str
    messages: Sequence[Draft]
    leaf: str | None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    is_pinned: bool = False
    cloud: Wish | None = None


class Node(Struct, frozen=True):
    """A node of a file's tree; one without a message is left out."""

    parent: str | None
    message: Draft | None


def planted(nodes: Mapping[str, Node], leaf: str | None) -> tuple[list[Draft], str | None]:
    """The messages, parents first, siblings in the file's order, and the leaf as far as it is among them.

    Raises:
        Broken: it is no tree.
    """
    if len(nodes) > MESSAGES_MAX:
        raise Broken(f"it has {len(nodes)} messages; {MESSAGES_MAX} can be imported")
    children: dict[str | None, list[str]] = {}
    for key, node in nodes.items():
        if node.parent is not None and node.parent not in nodes:
            raise Broken(f"the message {_short(key)} follows {_short(node.parent)}, which the file does not hold")
        children.setdefault(node.parent, []).append(key)
    found: list[Draft] = []
    # By node, the nearest message that was kept; depth first, without recursion.
    kept: dict[str, str | None] = {}
    waiting: list[tuple[str, str | None]] = [(key, None) for key in reversed(children.get(None, ()))]
    while waiting:
        key, parent = waiting.pop()
        message = nodes[key].message
        if message is not None:
            found.append(_following(message, parent))
            parent = key
        kept[key] = parent
        waiting.extend((child, parent) for child in reversed(children.get(key, ())))
    if len(kept) < len(nodes):
        key = next(key for key in nodes if key not in kept)
        raise Broken(f"its messages follow each other in a circle, at {_short(key)}")
    if not found:
        raise Broken("it holds no messages")
    last = None if leaf is None else kept.get(leaf)
    return found, found[-1].key if last is None else last


def _following(message: Draft, parent: str | None) -> Draft:
    if sum(len(text.encode("utf-8", "replace")) for text in (message.content, message.thinking)) > MESSAGE_BYTES_MAX:
        raise Broken(f"the message {_short(message.key)} is larger than {MESSAGE_BYTES_MAX} bytes")
    return Draft(**{**{name: getattr(message, name) for name in Draft.__struct_fields__}, "parent": parent})


def _short(key: str) -> str:
    return repr(key if len(key) <= KEY_CHARS_MAX else f"{key[:KEY_CHARS_MAX]}…")


def moment(value: Any) -> datetime | None:  # noqa: ANN401 (JSON)
    """A time as files write it: seconds, milliseconds or nanoseconds since 1970, or ISO 8601. Anything else: None."""
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            return None
        seconds = value if value < SECONDS_MAX else value / 1e3 if value < MILLISECONDS_MAX else value / 1e9
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def word(value: Any) -> str:  # noqa: ANN401 (JSON)
    """A text, or none."""
    return value if isinstance(value, str) else ""
