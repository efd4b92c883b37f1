"""Engines of the settings, and the keys that they ask for."""

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.embedded.llama import Llama
from server.engines.configured import engines_from
from server.engines.kinds import EngineSpec
from server.engines.protocol import Engine
from server.errors import StartError
from server.settings import Settings
from tests.conftest import MakeBox
from tests.stand_ins import openai_engine

KEY = "sk-nobody-may-read-this"


def with_engines(engines: tuple[str, ...], keys: tuple[str, ...]) -> list[Engine]:
    """Their adapters."""
    return engines_from(Settings(engines=engines, engine_keys=keys))


async def test_the_key_goes_to_its_engine_and_to_no_other(
    make_box: MakeBox, settings: Settings, engine_url: str, order: openai_engine.Order
) -> None:
    """With each request, as a bearer's; another engine at the same address, under another name, gets none."""
    for name, sent in (("keyed", f"Bearer {KEY}"), ("other", None)):
        own = Settings(engines=(f"keyed={engine_url}", f"other={engine_url}"), engine_keys=(f"keyed={KEY}",))
        engine = next(each for each in engines_from(own) if each.name == name)
        box = await make_box(settings, engines=[engine])
        person = await box.person(name, "admin")
        async with box.http(headers=person.bearer) as client:
            body = {"model": openai_engine.MODEL, "messages": [{"role": "user", "content": "x"}]}
            answer = await client.post("/v1/chat/completions", json=body)
            told = await client.get("/api/admin/engines")
        assert (answer.status_code, told.status_code) == (200, 200)
        assert order.headers[-1].get("Authorization") == sent
        assert KEY not in told.text


async def test_a_real_engine_that_asks_for_a_key_gets_it(llama: Llama) -> None:
    """llama-server, which refuses whoever has none."""
    url = f"real=llama-server+{llama.base_url}"
    (known,) = with_engines((url,), (f"real={llama.api_key}",))
    (unknown,) = with_engines((url,), ())
    try:
        assert await known.metrics()
        assert await unknown.metrics() is None
    finally:
        await known.close()
        await unknown.close()


@pytest.mark.parametrize(
    ("engines", "keys", "sentence"),
    [
        (("a=http://a/v1",), (KEY,), "Entry 1 of the setting engine_keys is not written as name=key"),
        (("a=http://a/v1",), (f"{KEY}==",), "with the name of an engine of the setting engines: a."),
        (("a=http://a/v1",), ("a=x", f"b={KEY}"), "Entry 2 of the setting engine_keys"),
        ((), (f"a={KEY}",), "of the setting engines: there are none."),
        (("a=http://a/v1",), ("a=",), "The key of a in the setting engine_keys is empty"),
        (("a=http://a/v1",), (f"a={KEY}\n",), "has characters that no header can carry"),
        (("a=http://a/v1",), (f"a={KEY}ä",), "has characters that no header can carry"),
        (("a=http://a/v1",), (f"a={KEY}", f"a={KEY}"), "The setting engine_keys has two keys for a."),
        (("a=http://u:p@a/v1",), (f"a={KEY}",), "has a key in engine_keys and a password in its URL"),
    ],
)
def test_what_is_wrong_is_told_without_the_key(engines: tuple[str, ...], keys: tuple[str, ...], sentence: str) -> None:
    """One sentence, which says where; not even a traceback has the key, nor a piece of it."""
    with pytest.raises(StartError) as raised:
        with_engines(engines, keys)
    assert sentence in raised.value.message
    assert raised.value.message.count(".") == 1
    assert KEY[:6] not in raised.value.message
    assert KEY[:6] not in "".join(traceback.format_exception_only(raised.value))


def test_names_that_were_made_of_a_url() -> None:
    """An engine without a name is called after its address; the longest name that fits is meant."""
    one, two = with_engines(("http://a:8000/v1", "http://a:8000/x=1/v1"), ("a:8000=one", "a:8000/x=1=two"))
    assert (one.name, two.name) == ("a:8000", "a:8000/x=1")
    assert vars(one)["_headers"] == {"Authorization": "Bearer one"}
    assert vars(two)["_headers"] == {"Authorization": "Bearer two"}


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8))
def test_a_key_is_shown_to_nobody(key: str) -> None:
    """Neither a spec nor an adapter shows it when it is printed, whatever it is; any printable key is sent as it is."""
    spec = EngineSpec(name="a", kind="openai", url="http://b/v1", api_key=key)
    (engine,) = with_engines(("a=http://b/v1",), (f"a={key}",))
    assert vars(engine)["_headers"] == {"Authorization": f"Bearer {key}"}
    plain = EngineSpec(name="a", kind="openai", url="http://b/v1", api_key="another")
    assert repr(spec) == repr(plain)
    assert repr(engine).partition(" at ")[0] == "<server.engines.openai_compatible.OpenAICompatible object"
