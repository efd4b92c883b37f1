"""The gate: the only caller of the ledger's admission. A request waits here until its engine has a free slot.

Five loops serve all requests of this replica:

    listen   takes the news that a queued request may run, or that a running one has to end
    report   every REPORT_MS charges all streams at once, which renews their leases, and learns what went wrong
    hasten   reports a first token at once where others wait for it: prompts that are read go one after the other
    tend     takes back the leases of dead replicas, and tells Redis the windows again, should it have lost them
    carry    carries ends and cancellations to Redis (ends.py)

Redis away: whoever wants in waits for `redis_grace_ms`, then gets a 503. Running streams go on. When Redis is back
their leases are renewed (reap.lua gives every lease one more life after a pause), or entered again if Redis lost its
state.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import structlog
from redis.exceptions import RedisError

from quotas.ledger import Admission, Entry, Fact, Ledger, Requeued, State
from quotas.window import Window
from server.clock import Clock
from server.deadline import first_of
from server.errors import Unavailable, WirthforgeError
from server.messages import Pressure
from server.settings import Settings
from server.sharing import told
from server.sharing.ends import Ends
from server.sharing.lease import Asking, Lease, Outcome
from server.sharing.outlook import Outlook
from server.sharing.refusals import budget_headers, lost, out_of_time, refusal, removed
from server.sharing.waiting import QuotasChanged, Waiting, heed_cancellation, stand_by

REPORT_MS = 250
IDLE_REPORT_MS = 1_000
TEND_MS = 1_000
LISTEN_MS = 2_000
RETRY_MS = 250

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Gate:
    """Admission for one replica.

    Args:
        ledger: the shared record.
        replica: a name that no other replica has, and that is new at every start.
    """

    def __init__(self, ledger: Ledger, outlook: Outlook, *, replica: str, clock: Clock, settings: Settings) -> None:
        self._ledger = ledger
        self._outlook = outlook
        self._replica = replica
        self._clock = clock
        self._settings = settings
        self._waiting: dict[str, Waiting] = {}
        self._leases: dict[str, Lease] = {}
        self._windows: dict[str, Window] = {}
        self._pressures: dict[str, Pressure] = {}
        # Engines for which somebody waited when Redis was last asked, on any replica.
        self._crowded: set[str] = set()
        self._first_tokens: asyncio.Queue[Lease] = asyncio.Queue()
        self._ends = Ends()
        self._came = asyncio.Event()
        self._lingering: set[asyncio.Task[None]] = set()

    def set_window(self, engine: str, window: Window) -> None:
        """Let `engine` run so much at a time."""
        if self._windows.get(engine) != window:
            self._windows[engine] = window
            # Soon, and again every second: Redis may be away, or lose it.
            self._ends.add_leave(lambda: self._tell(engine, window))

    def forget(self, engine: str) -> None:
        """The engine is gone; the ledger forgets it when nothing of it is left."""
        self._windows.pop(engine, None)
        self.clear(engine)
        for waiting in list(self._waiting.values()):
            if waiting.entry.engine == engine:
                if waiting.lease is None:
                    self._leave(waiting.entry)
                waiting.turn_away(removed())

    async def expected_wait_ms(self, engine: str) -> float:
        """About how long a request that came now would wait there. Raises redis.RedisError."""
        window = self._windows.get(engine)
        return await self._outlook.expected_wait_ms(engine, window.slots if window is not None else 1)

    async def withdraw(self, lease: Lease) -> None:
        """Take back a lease whose engine has done nothing: it leaves no trace, and may be asked for again.

        Raises:
            Unavailable: Redis is away.
        """
        lease.annul()
        self._leases.pop(lease.entry.id, None)
        try:
            await self._ledger.cancel(lease.entry.id)
        except (RedisError, OSError) as error:
            self._leave(lease.entry)
            raise Unavailable("The server is cut off from Redis. Try again.", retry_after_s=1) from error
        except BaseException:
            self._leave(lease.entry)
            raise

    async def requeue(self, lease: Lease, engine: str) -> None:
        """Give up the slot and wait for another, to go on with the answer. Who cancels this settles the lease as ever.

        Args:
            engine: where it goes on.

        Raises:
            Unavailable: the wait was too long, Redis is away or has reaped the lease, or the engine was removed.
        """
        request = lease.entry.id
        self._leases.pop(request, None)
        told.interrupted(lease)
        pause = lease.step_aside(engine)
        waiting = self._waiting[request] = Waiting(lease)
        try:
            state = await self._requeued(waiting, lease, pause)
            heed_cancellation()
            waiting.has_entered = True
            if state == "lost":
                waiting.turn_away(lost())
            elif state == "running":
                waiting.wake()
            async with asyncio.timeout(self._settings.queue_wait_ms_max / 1000):
                await waiting.turn
        except TimeoutError:
            raise out_of_time(is_paused=True) from None
        finally:
            del self._waiting[request]
        lease.step_in()
        self._leases[request] = lease

    async def _requeued(self, waiting: Waiting, lease: Lease, pause: int) -> Requeued | State:
        request, engine, tokens, cost = lease.entry.id, lease.entry.engine, lease.output_tokens, lease.cost
        state = await self._patiently(
            lambda: self._ledger.requeue(request, engine, pause=pause, output_tokens=tokens, cost=cost)
        )
        if state != "missing":
            return state
        try:
            return (await self._patiently(lambda: self._enter_again(waiting))).state
        except BaseException:
            self._leave(lease.entry)  # it may have ended before it is entered
            raise

    def linger(self, lease: Lease, duration_ms: int) -> None:
        """Its client left, and the engine goes on all the same: the slot is not free until then."""
        task = asyncio.create_task(self._clock.sleep_ms(duration_ms))
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)
        task.add_done_callback(lambda _: lease.settle("cancelled"))

    def clear(self, engine: str) -> None:
        """The engine takes no more requests: what runs there and could go on elsewhere does."""
        for lease in list(self._leases.values()):
            if lease.entry.engine == engine:
                lease.take_away("moved")

    def feel(self, engine: str, pressure: Pressure) -> None:
        """Let what `engine` says of itself trim its slots, in the next round."""
        self._pressures[engine] = pressure

    async def admit(self, asking: Asking) -> Lease:
        """Wait for a slot.

        Cancel the call to leave the queue.

        Raises:
            QuotasChanged: read the limits again and come back.
            TooMany, InvalidRequest: the person's own limits do not allow it.
            Unavailable: the queue is full, the wait was too long, or Redis is away.
        """
        entry, entered_ms = asking.entry, self._clock.monotonic_ms()
        waiting = self._waiting[entry.id] = Waiting(asking)
        try:
            admission = await self._enter(asking)
            heed_cancellation()
            if admission.state == "queued":
                waiting.has_entered = True
                self._came.set()
                headers = budget_headers(asking.limits, admission.budget)
                async with asyncio.timeout(self._settings.queue_wait_ms_max / 1000):
                    await stand_by(waiting, asking, headers, outlook=self._outlook, clock=self._clock)
            elif admission.state != "running":
                await self._refuse(admission, asking)
        except TimeoutError:
            self._leave(entry)
            told.refused(entry.engine, "timeout")
            raise out_of_time(is_paused=False) from None
        except (WirthforgeError, QuotasChanged):
            if waiting.has_entered:
                self._leave(entry)  # its engine was removed
            raise
        except BaseException:
            self._leave(entry)
            raise
        finally:
            del self._waiting[entry.id]
        lease = Lease(
            asking,
            admission,
            clock=self._clock,
            entered_ms=entered_ms,
            pauses_max=self._settings.pauses_max,
            settle=self._settle,
            on_first_token=self._hurry,
        )
        self._leases[entry.id] = lease
        self._came.set()
        told.admitted(lease)
        return lease

    async def _enter(self, asking: Asking) -> Admission:
        return await self._patiently(
            lambda: self._ledger.enqueue(
                asking.entry,
                asking.limits,
                replica=self._replica,
                queue_length_max=self._settings.queue_length_max,
                version=asking.version,
            ),
            give_up=lambda: self._give_up(asking.entry),
        )

    async def _patiently(self, call: Callable[[], Awaitable[T]], give_up: Callable[[], None] = lambda: None) -> T:
        """What `call` gives; while Redis is away it is tried again, for the grace. Raises Unavailable."""
        deadline_ms = self._clock.monotonic_ms() + self._settings.redis_grace_ms
        while True:
            try:
                return await call()
            except (RedisError, OSError) as error:
                if self._clock.monotonic_ms() >= deadline_ms:
                    give_up()
                    raise Unavailable(
                        "The server cannot reach its queue (Redis). Try again in a few seconds.",
                        code="queue_unavailable",
                        retry_after_s=5,
                    ) from error
                await self._clock.sleep_ms(RETRY_MS)

    async def _refuse(self, admission: Admission, asking: Asking) -> None:
        if admission.state == "stale":
            raise QuotasChanged
        room_in_ms = None
        if admission.state == "crowded":
            with suppress(RedisError, OSError):
                room_in_ms = await self._outlook.room_in_ms(asking.entry.user)
        told.refused(asking.entry.engine, admission.state)
        raise refusal(admission, asking.limits, room_in_ms=room_in_ms)

    def _hurry(self, lease: Lease) -> None:
        """Its prompt is read: another may be, if one waits."""
        engine = lease.entry.engine
        if engine in self._crowded or any(waiting.entry.engine == engine for waiting in self._waiting.values()):
            self._first_tokens.put_nowait(lease)

    def _give_up(self, entry: Entry) -> None:
        told.refused(entry.engine, "away")
        # The script may have run although its reply was lost.
        self._leave(entry)

    def _leave(self, entry: Entry) -> None:
        self._ends.add_leave(lambda: self._ledger.cancel(entry.id))

    def _settle(self, lease: Lease, outcome: Outcome) -> None:
        event, cost = lease.event(outcome), lease.cost
        self._leases.pop(lease.entry.id, None)
        told.settled(lease, outcome)
        self._ends.add(lambda: self._ledger.finish(lease.entry.id, lease.entry.engine, event, cost=cost))

    async def run(self) -> None:
        """Serve until cancelled; then carry the last ends to Redis, within `shutdown_grace_ms`."""
        try:
            async with asyncio.TaskGroup() as loops:
                for loop in (self._listen, self._report, self._hasten, self._tend, self._ends.carry):
                    loops.create_task(self._forever(loop), name=f"gate.{loop.__name__}")
        finally:
            for task in self._lingering:
                task.cancel()
            await self._ends.carry_rest(self._settings.shutdown_grace_ms)

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        is_away = False
        while True:
            heed_cancellation()
            try:
                await step()
            except (RedisError, OSError) as error:
                if not is_away:
                    log.warning("redis is away", step=step.__name__, error=type(error).__name__)
                is_away = True
                told.redis_answered(is_up=False)
                await self._clock.sleep_ms(RETRY_MS)
            else:
                if is_away:
                    log.info("redis is back", step=step.__name__)
                is_away = False
                told.redis_answered(is_up=True)

    async def _listen(self) -> None:
        match await self._ledger.news(self._replica, LISTEN_MS):
            case ("run", request) if request in self._waiting:
                self._waiting[request].wake()
            case ("run", request) if request not in self._leases:
                # Its client left, and Redis heard of that before it heard of the request, or forgot it.
                self._ends.add(lambda: self._ledger.cancel(request))
            case ("revoke", request) if request in self._leases:
                self._leases[request].take_away("revoked")
            case ("pause", request) if request in self._leases:
                self._leases[request].take_away("paused")
            case _:
                pass

    async def _report(self) -> None:
        waits = [waiting.progress for waiting in self._waiting.values() if waiting.has_entered]
        streams = [lease.progress for lease in self._leases.values() if lease.taken is None]
        for request, fact in await self._ledger.charge(self._replica, [*streams, *waits]):
            await self._learn(request, fact)
        heed_cancellation()
        if streams or waits:
            await self._clock.sleep_ms(REPORT_MS)
            return
        # Whoever comes now can be paused only after it was reported.
        self._came.clear()
        coming = asyncio.create_task(self._came.wait())
        try:
            await first_of(coming, self._clock, IDLE_REPORT_MS)
        finally:
            coming.cancel()

    async def _hasten(self) -> None:
        leases = [await self._first_tokens.get()]
        while not self._first_tokens.empty():
            leases.append(self._first_tokens.get_nowait())
        there = [lease.progress for lease in leases if lease.entry.id in self._leases]
        for request, fact in await self._ledger.charge(self._replica, there):
            await self._learn(request, fact)

    async def _learn(self, request: str, fact: Fact) -> None:
        """Act on what the ledger says of a request; it may have ended meanwhile."""
        lease, waiting = self._leases.get(request), self._waiting.get(request)
        if fact == "running" and waiting is not None:
            waiting.wake()
        elif fact == "paused" and lease is not None:
            lease.take_away("paused")
        elif fact in {"lost", "revoked"} and lease is not None:
            log.warning("lease taken away", request_id=request, reason=fact)
            lease.take_away("lost" if fact == "lost" else "revoked")
        elif fact == "lost" and waiting is not None and waiting.lease is not None:
            waiting.turn_away(lost())
        elif (known := lease or waiting) is not None and fact in {"lost", "missing"}:
            # Redis has lost its state, or it was this one's turn while the replica was cut off.
            admission = await self._enter_again(known)
            if request not in self._leases and request not in self._waiting:
                self._leave(known.entry)  # it ended while it was being entered again
            elif waiting is not None and admission.state == "running":
                waiting.wake()
            elif waiting is not None and admission.state != "queued":
                waiting.turn_away(refusal(admission, known.limits))

    async def _enter_again(self, known: Waiting | Lease) -> Admission:
        lease = known if isinstance(known, Lease) else known.lease
        return await self._ledger.enqueue(
            known.entry,
            known.limits,
            replica=self._replica,
            queue_length_max=self._settings.queue_length_max,
            version=await self._ledger.policy_version(),
            enters="queued" if lease is None else "paused" if lease is not known else "running",
            output_tokens=0 if lease is None else lease.output_tokens,
        )

    async def _tell(self, engine: str, window: Window) -> None:
        waiting = await self._ledger.dispatch(engine, window)
        (self._crowded.add if waiting else self._crowded.discard)(engine)

    async def _tend(self) -> None:
        told.show(self._leases.values(), self._waiting.values(), self._windows, clock=self._clock)
        for engine, window in list(self._windows.items()):  # another may come while Redis answers
            await self._tell(engine, window)
        while self._pressures:
            engine, pressure = self._pressures.popitem()
            await self._ledger.trim(engine, waiting=pressure.waiting, preempted=pressure.preempted)
        reaped = await self._ledger.reap()
        if reaped:
            told.reaped(len(reaped))
            log.warning("leases reaped", count=len(reaped))
        await told.sleep_ms(self._clock, TEND_MS)
