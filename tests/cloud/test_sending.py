"""Between the decision and the first byte: whatever happens there, no byte leaves that is not in the ledger before."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from server.clock import SystemClock
from server.cloud.consents import NotConsented
from server.cloud.sending import Changed, Outbound
from server.db.session import Database
from server.errors import TooMany, Unavailable
from server.privacy.sealed import new_key
from server.settings import Settings
from tests.cloud.worlds import Action, Cut, World, doing_at, world_of
from tests.stand_ins.cloud_provider import Cloud, hanging, refusing


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a key for keys."""
    return replace(settings, encryption_key=new_key())


@pytest.fixture
async def world(settings: Settings, cloud: Cloud) -> AsyncIterator[World]:
    """Ann's."""
    async with world_of(settings, cloud, "Jane Doe") as world:
        yield world


async def _outbound(world: World, **wish: Any) -> Outbound:
    """What would leave of a question of ann's, decided on."""
    considered = await world.hops.deciding.consider(
        world.request(**wish), world.identify, wait_ms=None, is_refused=True
    )
    assert considered.outbound is not None, considered.decision.sentence
    return considered.outbound


async def test_what_was_decided_on_leaves_once(world: World) -> None:
    """Exactly these bytes; a second time the ledger has them already."""
    outbound = await _outbound(world)
    reply = await world.hops.sending.send(outbound, None)
    reply.close()
    assert world.cloud.bodies == [outbound.question.body]
    with pytest.raises(Exception, match="has left the box already"):
        await world.hops.sending.send(outbound, None)
    assert len(world.cloud.bodies) == 1


async def _policy(world: World, _: Outbound) -> None:
    await world.ann_says(mode="never")


async def _somebodys_policy(world: World, _: Outbound) -> None:
    await world.box_says(is_on=True, detection_ms=19_000)


async def _conversation(world: World, outbound: Outbound) -> None:
    assert outbound.question.conversation_id is not None
    await world.conversation_says(outbound.question.conversation_id, "private")


@pytest.mark.parametrize("change", [_policy, _somebodys_policy, _conversation])
async def test_what_is_changed_between_check_and_send_sends_nothing(world: World, change: Any) -> None:
    """Not even a connection is opened, and nothing stands in the ledger or is reserved."""
    conversation = await world.conversation()
    outbound = await _outbound(world, conversation_id=conversation)
    await change(world, outbound)
    with pytest.raises(Changed):
        await world.hops.sending.send(outbound, None)
    assert world.is_silent
    assert await world.entries(outbound.question.request_id) == []
    assert await world.reserved() == 0


async def test_a_month_that_is_spent_sends_nothing(world: World) -> None:
    """Also where the decision did not know yet."""
    outbound = await _outbound(world)
    for limit in (0, outbound.question.reserved_micros - 1):
        with pytest.raises(TooMany):
            await world.hops.sending.send(outbound, limit)
    assert world.is_silent
    assert await world.reserved() == 0


@pytest.mark.parametrize("answer", ["no answer", "no", "yes and no", "another body", "expired", "used"])
async def test_a_consent_that_does_not_hold_sends_nothing(world: World, answer: str) -> None:
    """Not given, refused, taken back, given to something else, too old, or used up."""
    await world.ann_says(mode="ask", patience_ms=0)
    outbound = await _outbound(world)
    asked = await world.hops.consents.ask(outbound.question)
    if answer not in {"no answer", "no"}:
        await world.hops.consents.answer(world.ann.id, asked.token, is_yes=True)
    if answer in {"no", "yes and no"}:
        await world.hops.consents.answer(world.ann.id, asked.token, is_yes=False)
    if answer == "another body":
        outbound = replace(outbound, question=replace(outbound.question, sha256=bytes(32)))
    if answer in {"expired", "used"}:
        column = "expires_at" if answer == "expired" else "used_at"
        async with world.database.transaction(of=world.ann.id) as session:
            await session.execute(text(f"UPDATE cloud_consents SET {column} = now() - interval '1 s'"))  # noqa: S608
    with pytest.raises(NotConsented):
        await world.hops.sending.send(replace(outbound, consent_id=asked.id), None)
    assert world.is_silent
    assert await world.entries(outbound.question.request_id) == []


async def test_a_database_that_is_away_sends_nothing(world: World) -> None:
    """The ledger cannot be written, so there is nothing that may leave."""
    outbound = await _outbound(world)
    nowhere = Database("postgresql://nobody@127.0.0.1:1/nothing")
    world.hops.sending._database = nowhere
    with pytest.raises(Unavailable):
        await world.hops.sending.send(outbound, None)
    await nowhere.close()
    assert world.is_silent


async def test_a_provider_that_refuses_costs_nothing(world: World) -> None:
    """Its entry has an end, and what was reserved is given back."""
    world.cloud.behaviour = refusing("500 Oops")
    outbound = await _outbound(world)
    with pytest.raises(Exception, match="far"):
        await world.hops.sending.send(outbound, None)
    await world.settled()
    assert await world.entries(outbound.question.request_id) == ["send", "failed"]
    assert await world.reserved() == 0


async def test_who_is_cancelled_while_it_is_committed_sends_nothing(world: World) -> None:
    """The commit goes through; the ledger says that it came to nothing, and nobody was connected to."""
    outbound = await _outbound(world)
    sending = asyncio.create_task(world.hops.sending.send(outbound, None))
    await SystemClock().sleep_ms(0)
    sending.cancel()
    await asyncio.wait([sending])
    assert sending.cancelled()
    await world.settled()
    assert world.is_silent
    assert await world.entries(outbound.question.request_id) == ["send", "cancelled"]
    assert await world.reserved() == 0


# Each change begins at another wait, and takes every so many of them.
STRIDE = 2


async def test_a_crash_at_any_wait_leaves_no_byte_unwritten(world: World) -> None:
    """Cancelled at the first wait, at the second, … up to the last: what arrived was in the ledger before."""
    committed = 0
    for number in count():
        before, request = len(world.cloud.connections), world.request()
        try:
            await _run(world, request, number, None)
        except Cut:
            break
        except asyncio.CancelledError:
            pass
        opened = world.cloud.connections[before:]
        for connection in opened:
            await connection.gone.wait()
        entries = await world.entries(request.id)
        committed += bool(entries)
        assert len(entries) in {0, 2}, number  # a send never stays without its end
        assert entries or not opened, number
        assert await world.reserved() == 0, number
    assert committed > 0  # the last waits are those for the provider
    assert len(world.cloud.bodies) > 0  # and without a cut it is answered


async def test_a_change_at_any_wait_stops_what_has_not_left(world: World) -> None:
    """Nothing arrives that was not in the ledger before the change was made."""
    conversation = await world.conversation()
    changes: list[tuple[Action, Action]] = [
        (lambda: world.ann_says(mode="never"), lambda: world.ann_says(mode="allow", patience_ms=0)),
        (world.box_says, lambda: world.box_says(is_on=True, detection_model="looker", detection_ms=20_000)),
        (
            lambda: world.conversation_says(conversation, "private"),
            lambda: world.conversation_says(conversation, None),
        ),
        (lambda: world.may_spend(0), lambda: world.may_spend(1_000)),
    ]
    for offset, (change, undo) in enumerate(changes):
        written: list[list[str]] = []
        asked: list[UUID] = []

        async def changed(change: Action = change, written: Any = written, asked: Any = asked) -> None:
            await change()
            written.append(await world.entries(asked[-1]))

        for number in count(offset, STRIDE):
            before = len(world.cloud.bodies)
            request = world.request(conversation_id=conversation)
            asked.append(request.id)
            try:
                await _run(world, request, number, changed)
            except Cut:
                break
            if len(world.cloud.bodies) > before:
                # It was too late: the entry was there when the change was.
                assert written[-1][:1] == ["send"], (offset, number)
            await undo()
        await undo()
        assert len(written) > 1


async def _run(world: World, request: Any, number: int, action: Action | None) -> None:
    hop = world.hop(request)
    try:
        await asyncio.create_task(doing_at(hop._run(), number, action))
    finally:
        await hop.close()
        await world.settled()


async def test_a_client_that_leaves_takes_the_hop_along(world: World) -> None:
    """Cancelled from outside while the provider dawdles: hung up, ended, settled by what was sent."""
    world.cloud.behaviour = hanging
    world.cloud.hold.clear()
    request = world.request()
    async with AsyncExitStack() as stack:
        asking = asyncio.create_task(world.joined.way.answer(request, world.identify, stack))
        # The switch is the server's loop, which does not run here.
        with suppress(Unavailable):
            await asking
        hop = world.hop(request)
        hop._begin()
        await world.cloud.began.wait()
        await hop.close()
    await world.cloud.gone.wait()
    await world.settled()
    assert await world.entries(request.id) == ["send", "cancelled"]
    assert await world.reserved() == 0


async def test_pseudonyms_leave_in_the_place_of_names(world: World) -> None:
    """The body on the wire does not hold the name; the same question gives the same bytes."""
    await world.ann_says(mode="pseudonymised", patience_ms=0)
    considered = [
        await world.hops.deciding.consider(
            world.request("Write to Jane Doe, jane.doe@example.org."), world.identify, wait_ms=None, is_refused=True
        )
        for _ in range(2)
    ]
    bodies = [each.outbound.question.body for each in considered if each.outbound is not None]
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]
    assert b"Jane" not in bodies[0]
    assert b"jane.doe" not in bodies[0]
    assert considered[0].outbound is not None
    assert considered[0].outbound.form == "pseudonymised"
    assert json.loads(bodies[0])["messages"][0]["role"] == "user"


async def test_a_council_has_no_cloud_members_without_a_policy_that_says_so(world: World) -> None:
    """What a council asks for itself is no request of its person's."""
    request = replace(world.request(), council_id=UUID(int=7), role="leader")

    async def decided() -> str:
        considered = await world.hops.deciding.consider(request, world.identify, wait_ms=None, is_refused=True)
        return considered.decision.outcome

    assert await decided() == "local"
    await world.box_says(is_on=True, council_members=True, detection_model="looker", detection_ms=20_000)
    assert await decided() == "send"
    assert world.is_silent
