"""What files of conversations look like: ChatGPT's, Open WebUI's, and ours.

ChatGPT: `conversations.json` of the data export, an array of conversations. Each has a `mapping` of nodes by id
({message, parent, children}), with the text in `message.content.parts`; `current_node` is the end of the branch that
is shown. As described by mitkury/chatgpt-export-parser at 08e6ae59 (its docs/chatgpt-data-export-format.md), which was
checked there against 2500 real conversations. Messages of tools, to tools (`recipient`), and hidden ones are left out,
like pictures, which the file does not hold.

Open WebUI: an array of chats, {title, chat: {history: {messages, currentId}}, created_at, pinned}. Messages are named
by id ({parentId, role, content, timestamp, model}). As in open-webui/open-webui at 00059776
(backend/open_webui/models/chats.py); what a model thought stands in the text, in `<details type="reasoning">`.

Everything is read with suspicion: a field of a wrong type is as good as none, unless a message hangs on it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from server.conversations.drafts import Broken, Draft, DraftConversation, Node, moment, planted, word
from server.privacy.modes import Wish, wish_of

OURS, CHATGPT, OPEN_WEBUI = "wirthforge", "chatgpt", "open-webui"
VERSION = 1
ROLES = ("user", "assistant", "system")
# Without end: of a block that is cut off the rest is thought. Searched from `<details` on, so it does not go back.
REASONING = re.compile(r'<details\s+type="reasoning"[^>]*>(.*?)(?:</details>\s*|\Z)', re.DOTALL)
SUMMARY = re.compile(r"<summary>.*?</summary>", re.DOTALL)
STATES = ("complete", "stopped", "failed", "interrupted")


def read(told: Any) -> DraftConversation:  # noqa: ANN401 (JSON)
    """A conversation out of one element of a file.

    Raises:
        Broken: it is none that we know.
    """
    if not isinstance(told, dict):
        raise Broken("it is no object")
    for is_it, reader in READERS:
        if is_it(told):
            return reader(told)
    raise Broken("it is neither a conversation of ChatGPT's export, nor of Open WebUI's, nor of ours")


def title_in(told: Any) -> str:  # noqa: ANN401 (JSON)
    """What a broken one is called."""
    return word(told.get("title")) if isinstance(told, dict) else ""


def _objects(value: Any, what: str) -> Mapping[str, dict[str, Any]]:  # noqa: ANN401 (JSON)
    if not isinstance(value, dict):
        raise Broken(f"its {what} is no object")
    for key, each in value.items():
        if not isinstance(each, dict):
            raise Broken(f"{key[:40]!r} in its {what} is no object")
    return value


def _key(value: Any, what: str) -> str | None:  # noqa: ANN401 (JSON)
    if value is None or isinstance(value, str):
        return value or None
    raise Broken(f"a {what} is no text")


def _chatgpt(told: dict[str, Any]) -> DraftConversation:
    nodes = {
        key: Node(_key(node.get("parent"), "parent"), _of_chatgpt(key, node.get("message")))
        for key, node in _objects(told["mapping"], "mapping").items()
    }
    messages, leaf = planted(nodes, _key(told.get("current_node"), "current_node"))
    return DraftConversation(
        source=CHATGPT,
        title=word(told.get("title")),
        messages=messages,
        leaf=leaf,
        created_at=moment(told.get("create_time")),
        updated_at=moment(told.get("update_time")),
    )


def _of_chatgpt(key: str, told: Any) -> Draft | None:  # noqa: ANN401 (JSON)
    if not isinstance(told, dict):
        return None
    author, content, about = (_part(told, name) for name in ("author", "content", "metadata"))
    role = author.get("role")
    if role not in ROLES or word(told.get("recipient")) not in {"", "all"}:
        return None
    if about.get("is_visually_hidden_from_conversation") is True:
        return None
    parts = content.get("parts")
    texts = (
        [part for part in parts if isinstance(part, str)] if isinstance(parts, list) else [word(content.get("text"))]
    )
    text = "\n\n".join(each for each in texts if each)
    if not text.strip():
        return None
    return Draft(
        key=key,
        parent=None,
        role=role,
        content=text,
        model=word(about.get("model_slug")) if role == "assistant" else "",
        created_at=moment(told.get("create_time")),
    )


def _part(told: dict[str, Any], name: str) -> dict[str, Any]:
    found = told.get(name)
    return found if isinstance(found, dict) else {}


def _open_webui(told: dict[str, Any]) -> DraftConversation:
    chat = told["chat"]
    history = _part(chat, "history")
    nodes = {
        key: Node(_key(message.get("parentId"), "parentId"), _of_open_webui(key, message))
        for key, message in _objects(history.get("messages"), "history").items()
    }
    messages, leaf = planted(nodes, _key(history.get("currentId"), "currentId"))
    return DraftConversation(
        source=OPEN_WEBUI,
        title=word(told.get("title")) or word(chat.get("title")),
        messages=messages,
        leaf=leaf,
        created_at=moment(told.get("created_at")) or moment(chat.get("timestamp")),
        updated_at=moment(told.get("updated_at")),
        is_pinned=told.get("pinned") is True,
    )


def _of_open_webui(key: str, told: dict[str, Any]) -> Draft | None:
    role, text = told.get("role"), word(told.get("content"))
    if role not in ROLES:
        return None
    thoughts: list[str] = []
    if role == "assistant" and "<details" in text:
        thoughts = [_thought(block[1]) for block in REASONING.finditer(text)]
        text = REASONING.sub("", text)
    if not text.strip() and not thoughts:
        return None
    return Draft(
        key=key,
        parent=None,
        role=role,
        content=text.strip() if thoughts else text,
        thinking="\n\n".join(thoughts),
        model=word(told.get("model")),
        created_at=moment(told.get("timestamp")),
    )


def _thought(block: str) -> str:
    """Its text, which is quoted line by line."""
    return "\n".join(line.removeprefix("> ").removeprefix(">") for line in SUMMARY.sub("", block).strip().splitlines())


def _ours(told: dict[str, Any]) -> DraftConversation:
    if told.get("version") != VERSION:
        raise Broken(f"it is of version {told.get('version')!r}; this server reads {VERSION}")
    rows = told.get("messages")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Broken("its messages are no list of objects")
    nodes: dict[str, Node] = {}
    for row in rows:
        key = _key(row.get("id"), "id")
        if key is None or key in nodes:
            raise Broken("a message has no id, or that of another")
        nodes[key] = Node(_key(row.get("parent_id"), "parent_id"), _of_ours(key, row))
    messages, leaf = planted(nodes, _key(told.get("leaf_id"), "leaf_id"))
    return DraftConversation(
        source=OURS,
        title=word(told.get("title")),
        messages=messages,
        leaf=leaf,
        created_at=moment(told.get("created_at")),
        updated_at=moment(told.get("updated_at")),
        is_pinned=told.get("pinned") is True,
        cloud=_wish(told.get("cloud")),
    )


def _wish(told: Any) -> Wish | None:  # noqa: ANN401 (JSON)
    """What may leave of it. A word that nobody knows means the strictest there is."""
    try:
        return wish_of(told)
    except ValueError:
        return "private"


def _of_ours(key: str, row: dict[str, Any]) -> Draft | None:
    if row.get("role") not in ROLES:
        raise Broken(f"the message {key[:40]!r} has no role")
    state = row.get("state")
    return Draft(
        key=key,
        parent=None,
        role=row["role"],
        content=word(row.get("content")),
        thinking=word(row.get("thinking")),
        model=word(row.get("model")),
        # One that still grew when it was exported does not any more.
        state=state if state in STATES else "interrupted" if state == "streaming" else "complete",
        created_at=moment(row.get("created_at")),
    )


READERS: tuple[tuple[Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], DraftConversation]], ...] = (
    (lambda told: told.get("format") == OURS, _ours),
    (lambda told: "mapping" in told, _chatgpt),
    (lambda told: isinstance(told.get("chat"), dict), _open_webui),
)
