"""The gate: the only caller of the ledger's admission. A request waits here until its engine has a free slot.

Five loops serve all requests of this replica:

    listen   takes the news that a queued request may run, or that a running one has to end
    report   every REPORT_MS charges all streams at once, which renews their leases, and learns what went wrong
    hasten   reports a first token at once where others wait for it: prompts that are read go one after the other
    tend     takes back the leases of dead replicas, and tells Redis the windows again, should it have lost them
    settle   carries ends and cancellations to Redis, in order, and again after Redis was away

Ends go through a queue in memory, so that ending a request never waits and never fails: it happens in the middle of
cancellations, where an `await` might not be reached.

Redis away: whoever wants in waits for `redis_grace_ms`, then gets a 503. Running streams go on. When Redis is back
their leases are renewed (reap.lua gives every lease one more life after a pause), or entered again if Redis lost its
state.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import structlog
from redis.exceptions import DataError, RedisError

from quotas.ledger import Admission, Entry, Fact, Ledger, Progress
from quotas.window import Window
from server.clock import Clock
from server.errors import Unavailable, WirthforgeError
from server.messages import Pressure
from server.settings import Settings
from server.sharing.lease import Asking, Lease, Outcome
from server.sharing.outlook import Outlook
from server.sharing.refusals import budget_headers, refusal
from server.telemetry import (
    FIRST_TOKEN_SECONDS,
    GATE_QUEUE_SECONDS,
    LEASES_REAPED,
    MODEL_REQUESTS,
    REFUSALS,
    TOKENS,
)

REPORT_MS = 250
IDLE_REPORT_MS = 1_000
TEND_MS = 1_000
LISTEN_MS = 2_000
RETRY_MS = 250
# How often a waiting request is told where it stands, and how soon for the first time.
TELL_MS = 1_000
TELL_FIRST_MS = 250
# While Redis is away everybody who gives up adds one. What is not carried is harmless: the reaper finds it.
LEAVES_MAX = 10_000

log = structlog.get_logger(__name__)


def _heed_cancellation() -> None:
    """Raise a cancellation that an await swallowed: before Python 3.12 asyncio.wait_for does, and redis-py uses it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class QuotasChanged(Exception):
    """The limits that a request came with are not those in force."""


class _Waiting:
    """A request in the queue; `turn` is set when it may run, or why it may not after all."""

    def __init__(self, asking: Asking) -> None:
        self.entry = asking.entry
        self.limits = asking.limits
        # Until then the ledger may not have heard of it.
        self.has_entered = False
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)

    def turn_away(self, error: WirthforgeError) -> None:
        if not self.turn.done():
            self.turn.set_exception(error)


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
        self._waiting: dict[str, _Waiting] = {}
        self._leases: dict[str, Lease] = {}
        self._windows: dict[str, Window] = {}
        self._pressures: dict[str, Pressure] = {}
        # Engines for which somebody waited when Redis was last asked, on any replica.
        self._crowded: set[str] = set()
        self._first_tokens: asyncio.Queue[Lease] = asyncio.Queue()
        # Bounded: by the leases of this replica, since nobody is admitted while Redis is away, and by LEAVES_MAX.
        self._ends: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()

    def set_window(self, engine: str, window: Window) -> None:
        """Let `engine` run so much at a time, from the next round on."""
        self._windows[engine] = window

    def forget(self, engine: str) -> None:
        """The engine is gone; the ledger forgets it when nothing of it is left."""
        self._windows.pop(engine, None)

    async def expected_wait_ms(self, engine: str) -> float:
        """About how long a request that came now would wait there. Raises redis.RedisError."""
        running, waiting = await self._ledger.load(engine)
        window = self._windows.get(engine)
        slots = window.slots if window is not None else 1
        view = await self._outlook.view()
        lately = next((each for each in view.engines if each.name == engine), None)
        answer_ms = lately.first_ms + lately.answer_tokens * lately.token_us / 1000 if lately is not None else 0
        # Among those with room the emptier one, which is the faster one too.
        ahead = max(running + waiting + 1 - slots, 0) + running / slots / 1000
        return max(answer_ms, 1) * ahead / slots

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
        waiting = self._waiting[entry.id] = _Waiting(asking)
        try:
            admission = await self._enter(asking)
            _heed_cancellation()
            if admission.state == "queued":
                waiting.has_entered = True
                await self._wait(waiting, asking, budget_headers(asking.limits, admission.budget))
            elif admission.state != "running":
                await self._refuse(admission, asking)
        except TimeoutError:
            self._leave(entry)
            raise Unavailable(
                "No slot became free in time. Try again later.", code="queue_timeout", retry_after_s=30
            ) from None
        except (WirthforgeError, QuotasChanged):
            raise  # it never entered
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
            settle=self._settle,
            on_first_token=self._hurry,
        )
        self._leases[entry.id] = lease
        GATE_QUEUE_SECONDS.labels(entry.engine).observe(lease.queue_ms / 1000)
        return lease

    async def _enter(self, asking: Asking) -> Admission:
        deadline_ms = self._clock.monotonic_ms() + self._settings.redis_grace_ms
        while True:
            try:
                return await self._ledger.enqueue(
                    asking.entry,
                    asking.limits,
                    replica=self._replica,
                    queue_length_max=self._settings.queue_length_max,
                    version=asking.version,
                )
            except (RedisError, OSError) as error:
                if self._clock.monotonic_ms() >= deadline_ms:
                    # The script may have run although its reply was lost.
                    self._leave(asking.entry)
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
        REFUSALS.labels(asking.entry.engine, admission.state).inc()
        raise refusal(admission, asking.limits, room_in_ms=room_in_ms)

    async def _wait(self, waiting: _Waiting, asking: Asking, headers: Mapping[str, str]) -> None:
        """Until it is this one's turn. Raises TimeoutError after `queue_wait_ms_max`."""
        pause_ms, entry = TELL_FIRST_MS, asking.entry
        # The first estimate, and when it was made.
        told: tuple[int, int] | None = None
        async with asyncio.timeout(self._settings.queue_wait_ms_max / 1000):
            while not (await asyncio.wait([waiting.turn], timeout=pause_ms / 1000))[0]:
                _heed_cancellation()
                pause_ms = TELL_MS
                with suppress(RedisError, OSError):
                    standing = await self._outlook.standing(entry.id, entry.user)
                    if told is None and (estimate_ms := self._outlook.estimate_ms(entry.id)) is not None:
                        told = estimate_ms, self._clock.monotonic_ms()
                    if asking.tell is not None and standing is not None:
                        await asking.tell(standing, headers)
        waiting.turn.result()
        if told is not None:
            estimate_ms, then_ms = told
            self._outlook.learn(entry.user, estimate_ms, self._clock.monotonic_ms() - then_ms)

    def _hurry(self, lease: Lease) -> None:
        """Its prompt is read: another may be, if one waits."""
        engine = lease.entry.engine
        if engine in self._crowded or any(waiting.entry.engine == engine for waiting in self._waiting.values()):
            self._first_tokens.put_nowait(lease)

    def _leave(self, entry: Entry) -> None:
        if self._ends.qsize() < LEAVES_MAX:
            self._ends.put_nowait(lambda: self._ledger.cancel(entry.id))

    def _settle(self, lease: Lease, outcome: Outcome) -> None:
        event, cost = lease.event(outcome), lease.cost
        self._leases.pop(lease.entry.id, None)
        MODEL_REQUESTS.labels(lease.entry.engine, outcome).inc()
        TOKENS.labels(lease.entry.engine, "input").inc(lease.input_tokens)
        TOKENS.labels(lease.entry.engine, "output").inc(lease.output_tokens)
        if lease.first_token_ms >= 0:
            FIRST_TOKEN_SECONDS.labels(lease.entry.engine).observe(lease.first_token_ms / 1000)
        self._ends.put_nowait(lambda: self._ledger.finish(lease.entry.id, lease.entry.engine, event, cost=cost))

    async def run(self) -> None:
        """Serve until cancelled; then carry the last ends to Redis, within `shutdown_grace_ms`."""
        try:
            async with asyncio.TaskGroup() as loops:
                for loop in (self._listen, self._report, self._hasten, self._tend, self._carry_end):
                    loops.create_task(self._forever(loop), name=f"gate{loop.__name__}")
        finally:
            await self._carry_last_ends()

    async def _carry_last_ends(self) -> None:
        try:
            async with asyncio.timeout(self._settings.shutdown_grace_ms / 1000):
                while not self._ends.empty():
                    await self._carry_end()
        except (RedisError, OSError, TimeoutError) as error:
            # The leases run out by themselves; the reaper of another replica, or of the next start, settles them.
            log.error("ends not carried to redis", count=self._ends.qsize(), error=type(error).__name__)

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        is_away = False
        while True:
            _heed_cancellation()
            try:
                await step()
            except (RedisError, OSError) as error:
                if not is_away:
                    log.warning("redis is away", step=step.__name__, error=type(error).__name__)
                is_away = True
                await self._clock.sleep_ms(RETRY_MS)
            else:
                if is_away:
                    log.info("redis is back", step=step.__name__)
                is_away = False

    async def _listen(self) -> None:
        match await self._ledger.news(self._replica, LISTEN_MS):
            case ("run", request) if request in self._waiting:
                self._waiting[request].wake()
            case ("run", request) if request not in self._leases:
                # Its client left, and Redis heard of that before it heard of the request, or forgot it.
                self._ends.put_nowait(lambda: self._ledger.cancel(request))
            case ("revoke", request) if request in self._leases:
                self._leases[request].take_away("revoked")
            case _:
                pass

    async def _report(self) -> None:
        waits = [Progress(request, 0, -1) for request, waiting in self._waiting.items() if waiting.has_entered]
        streams = [lease.progress for lease in self._leases.values() if lease.taken is None]
        for request, fact in await self._ledger.charge(self._replica, [*streams, *waits]):
            await self._learn(request, fact)
        await self._clock.sleep_ms(REPORT_MS if streams or waits else IDLE_REPORT_MS)

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
        elif fact in {"lost", "revoked"} and lease is not None:
            log.warning("lease taken away", request_id=request, reason=fact)
            lease.take_away("lost" if fact == "lost" else "revoked")
        elif (known := lease or waiting) is not None and fact in {"lost", "missing"}:
            # Redis has lost its state, or it was this one's turn while the replica was cut off.
            admission = await self._ledger.enqueue(
                known.entry,
                known.limits,
                replica=self._replica,
                queue_length_max=self._settings.queue_length_max,
                version=await self._ledger.policy_version(),
                enters="queued" if lease is None else "running",
            )
            if request not in self._leases and request not in self._waiting:
                self._leave(known.entry)  # it ended while it was being entered again
            elif waiting is not None and admission.state == "running":
                waiting.wake()
            elif waiting is not None and admission.state != "queued":
                waiting.turn_away(refusal(admission, known.limits))

    async def _tend(self) -> None:
        for engine, window in list(self._windows.items()):  # another may come while Redis answers
            waiting = await self._ledger.dispatch(engine, window)
            (self._crowded.add if waiting else self._crowded.discard)(engine)
        while self._pressures:
            engine, pressure = self._pressures.popitem()
            await self._ledger.trim(engine, waiting=pressure.waiting, preempted=pressure.preempted)
        reaped = await self._ledger.reap()
        if reaped:
            LEASES_REAPED.inc(len(reaped))
            log.warning("leases reaped", count=len(reaped))
        await self._clock.sleep_ms(TEND_MS)

    async def _carry_end(self) -> None:
        end = await self._ends.get()
        try:
            await end()
        except DataError:
            # It can never be written; the lease runs out by itself.
            log.exception("an end was lost")
        except BaseException:
            # Back in the queue, also when cancelled: the order of ends means nothing, since each names its request.
            self._ends.put_nowait(end)
            raise
