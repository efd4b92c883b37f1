"""Prompt caches: one's own prompt is found again, and nobody else's is, by what a real llama.cpp says of its cache."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from benchmarks import tiny_model
from quotas.ledger import Ledger
from server.chat.salts import LedgerPins
from server.clock import SystemClock
from server.embedded.llama import Llama
from server.engines.conformance import examine
from server.engines.isolation import NAMES_OTHERS, Isolation
from server.engines.kinds import Defaults, EngineSpec, load_kinds
from server.settings import Settings
from server.sharing.redis import connect_redis
from tests.boxes import Box, Person
from tests.conftest import MakeBox, adapter
from tests.stand_ins import openai_engine
from tests.stand_ins.openai_engine import MODEL, Order

CACHED_MIN = 20
# The template's first words are in each prompt of one's own.
TEMPLATE_MAX = 8


def prompt() -> str:
    """One that nobody has sent before."""
    return uuid4().hex + " once upon a time" * 20


async def cached(box: Box, person: Person, text: str, **more: Any) -> int:
    """How many tokens of the prompt the engine had already."""
    body = {"model": tiny_model.NAME, "messages": [{"role": "user", "content": text}], "max_tokens": 2} | more
    async with box.http(headers=person.bearer) as client:
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


async def test_the_paired_probe(llama_box: Box) -> None:
    """Who sends a prompt again finds it; another who sends the same finds nothing, in either order."""
    ann, ben = await llama_box.person("ann"), await llama_box.person("ben")
    for one, other in ((ann, ben), (ben, ann)):
        text = prompt()
        assert await cached(llama_box, one, text) <= TEMPLATE_MAX
        assert await cached(llama_box, other, text) <= TEMPLATE_MAX
        assert await cached(llama_box, one, text) > CACHED_MIN
        assert await cached(llama_box, other, text) > CACHED_MIN


async def test_a_conversation_finds_its_own_beginning(llama_box: Box) -> None:
    """What was said before is not read again."""
    ann, text = await llama_box.person("ann"), prompt()
    await cached(llama_box, ann, text)
    assert await cached(llama_box, ann, text, messages=[{"role": "user", "content": text + " and then?"}]) > CACHED_MIN


@pytest.mark.parametrize("field", [{"cache_prompt": True}, {"id_slot": 0}, {"cache_salt": "x"}])
async def test_clients_cannot_reach_into_it(llama_box: Box, field: dict[str, Any]) -> None:
    """Fields with which another's slot could be named have no effect."""
    ann, ben, text = await llama_box.person("ann"), await llama_box.person("ben"), prompt()
    await cached(llama_box, ann, text)
    for _ in range(2):
        other = prompt()
        assert await cached(llama_box, ben, other, **field) <= TEMPLATE_MAX
    assert await cached(llama_box, ben, text, **field) <= TEMPLATE_MAX


async def test_after_several_answers_to_one_request_nothing_is_anybodys(llama_box: Box) -> None:
    """They lie in any slots: nobody finds anything of them there."""
    ann, ben, text = await llama_box.person("ann"), await llama_box.person("ben"), prompt()
    await cached(llama_box, ben, prompt())
    assert await cached(llama_box, ann, text, n=2) == 0
    for _ in range(2):
        # The second finds the first, which is ben's own.
        again = uuid4().hex
        assert await cached(llama_box, ben, again + text) <= TEMPLATE_MAX
    assert await cached(llama_box, ben, text) <= TEMPLATE_MAX


async def test_many_at_once(llama_box: Box) -> None:
    """Each of six people sends a prompt of all, over and over and at the same time: only one's own is ever found."""
    people = [await llama_box.person(f"person{number}") for number in range(6)]
    for _ in range(3):
        text = prompt()
        found = await asyncio.gather(*(cached(llama_box, each, text) for each in people))
        assert max(found) <= TEMPLATE_MAX


async def test_two_replicas_share_what_they_know(make_box: MakeBox, llama: Llama) -> None:
    """One's own prompt is found through the other replica, and another's through neither; lost pins are only cold."""
    one, other = [await make_box(engines=[adapter(llama, name=tiny_model.NAME)]) for _ in range(2)]
    ann, ben, text = await one.person("ann"), await one.person("ben"), prompt()
    assert await cached(one, ann, text) == 0
    assert await cached(other, ben, text) == 0
    assert await cached(other, ann, text) > CACHED_MIN
    async for key in one.ledger._redis.scan_iter("*pins:*"):
        await one.ledger._redis.delete(key)
    assert await cached(one, ben, text) == 0


async def test_llama_cpp_keeps_its_promises(wandering: Llama, redis_url: str) -> None:
    """By the conformance test: it stops, counts, and keeps people apart; also where it was only called openai."""
    clock, redis = SystemClock(), connect_redis(redis_url)
    defaults = Defaults(slots=2, silence_ms_max=60_000, pins=LedgerPins(Ledger(redis), clock))
    for kind in ("llama-server", "openai"):
        spec = EngineSpec(name="llama", kind=kind, url=wandering.base_url, api_key=wandering.api_key)
        engine = load_kinds([])[kind](spec, defaults)
        await engine.probe()
        assert engine.isolates_caches is True
        found = await examine(engine, "w", uuid4().hex, clock)
        await engine.close()
        assert (found.stops, found.counts, found.isolates, found.error) == ("yes", "yes", "yes", None)
    await redis.aclose()


async def test_vllm_gets_a_salt_of_person_and_model(make_box: MakeBox, settings: Settings) -> None:
    """The same for one person, another for another person, and none of the client's own."""
    order = Order()
    async with openai_engine.serve(order) as url:
        box = await make_box(replace(settings, engines=(f"vllm+{url}",)))
        for name in ("ann", "ben"):
            person = await box.person(name)
            async with box.http(headers=person.bearer) as client:
                for _ in range(2):
                    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "cache_salt": "mine"}
                    assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    ann, ann_again, ben, ben_again = [body["cache_salt"] for body in order.seen]
    assert ann == ann_again != ben == ben_again
    assert "mine" not in {ann, ben}


async def test_without_pins_or_known_slots_nothing_is_reused() -> None:
    """A llama-server that nobody keeps slots of is told not to look into its cache."""
    body, pin = await Isolation("place", None).apply("llama-server", "chat.completions", {}, "id", "salt", 4)
    assert (body, pin) == ({"cache_prompt": False}, None)


@pytest.mark.parametrize("kind", ["openai", "vllm", "sglang", "llama-server"])
async def test_fields_that_name_what_is_others_do_not_reach_an_engine(kind: str) -> None:
    """Sessions, ids, cache keys and places to fetch prompts from: none of a client's own; the rest goes on."""
    asked = {"model": MODEL, "top_k": 3, **dict.fromkeys(NAMES_OTHERS, "another's")}
    told, _ = await Isolation("place", None).apply(kind, "chat.completions", asked, "id", "salt", 4)
    assert {name: told[name] for name in told if not name.startswith("cache_")} == {"model": MODEL, "top_k": 3}
