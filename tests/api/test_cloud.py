"""What a request says about leaving the box, as the edge reads it; where nothing may leave it changes nothing."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.wire import parse
from server.api.wishes import CONSENT_HEADER, HEADER, with_headers
from server.errors import InvalidRequest
from server.messages import CloudWish, ModelRequest
from server.privacy.modes import WISHES
from tests.boxes import Box
from tests.stand_ins.openai_engine import MODEL, Order

ID = UUID(int=1)
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
wishes = st.none() | st.sampled_from(WISHES)


def parsed(**fields: Any) -> ModelRequest:
    """A chat completion, read."""
    return parse("chat.completions", json.dumps(CHAT | fields).encode(), ID)


@given(wishes, wishes)
def test_the_stricter_of_body_and_header_counts(body: str | None, header: str | None) -> None:
    """Neither can loosen what the other says."""
    request = parsed(**({} if body is None else {"wirthforge": {"cloud": body}}))
    read = with_headers(request, {} if header is None else {HEADER: header})
    said = [each for each in (body, header) if each is not None]
    strictest = next((wish for wish in WISHES if wish in said), None)
    assert read.cloud.mode == strictest


@given(st.dictionaries(st.text(), st.integers(), max_size=3), st.booleans())
def test_our_words_are_taken_out_of_the_body_and_no_others(others: dict[str, int], takes_events: bool) -> None:
    """An engine gets what was not ours."""
    others = {name: value for name, value in others.items() if name not in {"cloud", "cloud_events"}}
    request = parsed(wirthforge={**others, "cloud": "ask", "cloud_events": takes_events})
    assert request.body.get("wirthforge", {}) == others
    assert request.cloud == CloudWish(mode="ask", takes_events=takes_events)


@pytest.mark.parametrize("word", ["", "Allow", "yes", 1, True, ["allow"], {"mode": "allow"}])
def test_a_word_that_is_none_is_refused(word: Any) -> None:
    """And named, by the field that holds it."""
    with pytest.raises(InvalidRequest, match="private, never, ask, pseudonymised, allow") as refused:
        parsed(wirthforge={"cloud": word})
    assert refused.value.param == "wirthforge.cloud"


def test_headers_in_any_case_and_a_token() -> None:
    """As proxies and people write them; a token that cannot be one of ours is refused."""
    read = with_headers(parsed(), {HEADER: " Private ", CONSENT_HEADER: " token "})
    assert read.cloud == CloudWish(mode="private", consent="token")
    with pytest.raises(InvalidRequest):
        with_headers(parsed(), {CONSENT_HEADER: "x" * 1_000})


async def test_a_box_whose_cloud_is_off_answers_all_of_them(box: Box, order: Order) -> None:
    """On every surface, TGI's too; and engines never see our words."""
    ann = await box.person("ann")
    headers = {**ann.bearer, HEADER: "private", CONSENT_HEADER: "unknown"}
    async with box.http(headers=headers) as client:
        chat = await client.post("/v1/chat/completions", json=CHAT | {"wirthforge": {"cloud": "allow"}})
        text = await client.post("/generate", json={"inputs": "hi", "parameters": {"max_new_tokens": 2}})
        wrong = await client.post("/generate", json={"inputs": "hi"}, headers={HEADER: "perhaps"})
    assert (chat.status_code, text.status_code, wrong.status_code) == (200, 200, 422)
    assert HEADER not in chat.headers
    assert all("wirthforge" not in body for body in order.seen)
    assert all(HEADER not in {name.lower() for name in sent} for sent in order.headers)
