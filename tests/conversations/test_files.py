"""Files of conversations: cut, read, and refused."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.conversations.drafts import Broken
from server.conversations.elements import DEPTH_MAX, elements
from server.conversations.formats import read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)


def chatgpt(**fields: Any) -> dict[str, Any]:
    """A conversation as ChatGPT's export has it, with a root, a hidden message and an edited question."""

    def node(key: str, parent: str | None, role: str, text: str, **about: Any) -> dict[str, Any]:
        message = {
            "id": key,
            "author": {"role": role, "name": None, "metadata": {}},
            "create_time": 1690000000.5,
            "content": {"content_type": "text", "parts": [text]},
            "status": "finished_successfully",
            "metadata": about,
            "recipient": "all",
        }
        return {"id": key, "message": message, "parent": parent, "children": []}

    hidden = node("sys", "root", "system", "Be nice", is_visually_hidden_from_conversation=True)
    mapping = {
        "root": {"id": "root", "message": None, "parent": None, "children": ["sys"]},
        "sys": hidden,
        "q1": node("q1", "sys", "user", "hello"),
        "a1": node("a1", "q1", "assistant", "good day", model_slug="gpt-4"),
        "q2": node("q2", "sys", "user", "hello, edited"),
        "a2": node("a2", "q2", "assistant", "good evening", model_slug="gpt-4o"),
    }
    return {
        "title": "Greetings",
        "create_time": 1690000000.1,
        "update_time": 1690000100.1,
        "mapping": mapping,
        "current_node": "a2",
        **fields,
    }


def open_webui(**fields: Any) -> dict[str, Any]:
    """A chat as Open WebUI exports it."""
    thought = (
        '<details type="reasoning" done="true" duration="2">\n<summary>Thought</summary>\n> hm\n> yes\n</details>\n4'
    )
    question = {"id": "q", "parentId": None, "childrenIds": ["a"], "role": "user", "content": "2+2?"}
    answer = {"id": "a", "parentId": "q", "childrenIds": [], "role": "assistant", "content": thought, "model": "llama"}
    history = {"messages": {"q": question, "a": answer | {"timestamp": 1700000001}}, "currentId": "a"}
    chat = {"title": "Sums", "models": ["llama"], "history": history, "messages": [question, answer]}
    about = {"id": "x", "user_id": "u", "title": "Sums", "updated_at": 1700000002, "created_at": 1700000000}
    return {**about, "chat": chat, "pinned": True, **fields}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=4), st.sampled_from([None, 1]))
def test_an_array_is_cut_where_json_says(told: list[dict[str, Any]], indent: int | None) -> None:
    """Whatever stands in its strings."""
    raw = json.dumps(told, indent=indent, ensure_ascii=False).encode("utf-8", "replace")
    assert [json.loads(bytes(each.raw)) for each in elements(raw)] == json.loads(raw)


def test_one_object_is_one_element() -> None:
    """With a byte order mark, as editors leave one."""
    assert [bytes(each.raw) for each in elements(b'\xef\xbb\xbf {"a": [1, "]"]} ')] == [b'{"a": [1, "]"]}']
    assert list(elements(b'"text"')) == []
    assert list(elements(b"")) == []


def test_a_file_that_ends_in_the_middle_has_whole_ones_before() -> None:
    """And says of the last one what is wrong."""
    found = list(elements(b'[{"a": 1}, {"b": [2'))
    assert [each.fault for each in found] == [None, "the file ends in the middle of it"]


def test_what_is_nested_without_end_is_told_and_passed() -> None:
    """Neither memory nor the stack grows with it."""
    deep = b"[" * 1_000_000 + b"]" * 1_000_000
    found = list(elements(b'[{"a": 1}, {"b": ' + deep + b'}, {"c": 1}]'))
    assert [each.fault for each in found] == [None, f"it is nested deeper than {DEPTH_MAX} levels", None]


def test_chatgpt_is_read_with_its_branches() -> None:
    """Roots and hidden messages are left out, and what follows them moves up."""
    draft = read(chatgpt())
    assert [(each.key, each.parent, each.role, each.content) for each in draft.messages] == [
        ("q1", None, "user", "hello"),
        ("a1", "q1", "assistant", "good day"),
        ("q2", None, "user", "hello, edited"),
        ("a2", "q2", "assistant", "good evening"),
    ]
    assert (draft.title, draft.leaf, draft.messages[1].model) == ("Greetings", "a2", "gpt-4")
    assert draft.created_at is not None
    assert draft.created_at.year == 2023


def test_open_webui_is_read_with_its_thoughts() -> None:
    """What a model thought stands in its text there."""
    draft = read(open_webui())
    question, answer = draft.messages
    assert (question.content, answer.content, answer.thinking, answer.model) == ("2+2?", "4", "hm\nyes", "llama")
    assert (draft.is_pinned, draft.leaf) == (True, "a")


def _mapping(**parents: str | None) -> dict[str, Any]:
    told = chatgpt()
    for key, parent in parents.items():
        told["mapping"][key]["parent"] = parent
    return told


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (_mapping(q1="a1"), "circle"),
        (_mapping(q1="q1"), "circle"),
        (_mapping(a2="nowhere"), "'nowhere', which the file does not hold"),
        (_mapping(a2=7), "a parent is no text"),  # type: ignore[arg-type]
        (chatgpt(mapping=[]), "its mapping is no object"),
        (chatgpt(mapping={"a": 1}), "'a' in its mapping is no object"),
        (chatgpt(mapping={}), "it holds no messages"),
        (chatgpt(current_node=[]), "a current_node is no text"),
        (open_webui(chat={"history": {"messages": None}}), "its history is no object"),
        ({"format": "wirthforge", "version": 2}, "it is of version 2"),
        ({"format": "wirthforge", "version": 1, "messages": [{"id": "a"}]}, "has no role"),
        ({"format": "wirthforge", "version": 1, "messages": [1]}, "its messages are no list of objects"),
        ({}, "it is neither"),
        (None, "it is no object"),
    ],
)
def test_what_is_broken_is_named(told: Any, why: str) -> None:
    """In words that its person can do something with."""
    with pytest.raises(Broken, match=why):
        read(told)


@settings(deadline=None)
@given(st.sampled_from([chatgpt, open_webui]), st.data())
def test_a_wrong_type_anywhere_breaks_no_more_than_its_conversation(make: Any, data: st.DataObject) -> None:
    """It is read, or refused; there is no third way."""
    told = json.loads(json.dumps(make()))
    at: Any = told
    while isinstance(at, dict) and at and (isinstance(at, dict)):
        key = data.draw(st.sampled_from(sorted(at)))
        if not isinstance(at[key], dict) or data.draw(st.booleans()):
            at[key] = data.draw(JSON)
            break
        at = at[key]
    try:
        draft = read(told)
    except Broken:
        return
    assert draft.messages


def test_a_chain_of_many_messages_is_no_recursion() -> None:
    """Each follows the one before."""
    told = chatgpt()
    template = told["mapping"]["q1"]
    told["mapping"] = {str(n): {**template, "parent": str(n - 1) if n else None} for n in range(20_000)}
    told["current_node"] = "19999"
    assert len(read(told).messages) == 20_000
