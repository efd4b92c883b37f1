"""The circuit breaker: when it opens, for how long, and what closes it."""

from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.engines.health import FAILURES_MAX, OPEN_MS_FIRST, OPEN_MS_MAX, Breaker
from tests.clocks import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Time that stands still."""
    return FakeClock()


def _pass(clock: FakeClock, duration_ms: int) -> None:
    clock.advance(timedelta(milliseconds=duration_ms))


def _fail(breaker: Breaker, times: int = FAILURES_MAX) -> None:
    for _ in range(times):
        breaker.fail()


def test_it_opens_at_the_third_failure_in_a_row(clock: FakeClock) -> None:
    """A success between them starts the count anew."""
    breaker = Breaker(clock)
    _fail(breaker, 2)
    breaker.succeed()
    _fail(breaker, 2)
    assert (breaker.state, breaker.lets_pass, breaker.rest_ms) == ("closed", True, 0)
    breaker.fail()
    assert (breaker.state, breaker.lets_pass, breaker.rest_ms) == ("open", False, OPEN_MS_FIRST)


def test_a_hundred_that_break_at_once_are_one_fault(clock: FakeClock) -> None:
    """Requests that were under way when it opened do not keep it open for longer."""
    breaker = Breaker(clock)
    _fail(breaker, 100)
    assert breaker.rest_ms == OPEN_MS_FIRST


def test_one_tries_for_all(clock: FakeClock) -> None:
    """After a while a single request goes there; the others may when it has succeeded, or left."""
    breaker = Breaker(clock)
    _fail(breaker)
    _pass(clock, OPEN_MS_FIRST)
    assert (breaker.state, breaker.lets_pass) == ("half-open", True)
    assert breaker.try_one()
    assert not breaker.lets_pass
    assert not breaker.try_one()
    breaker.release()
    assert breaker.lets_pass
    assert breaker.try_one()
    breaker.succeed()
    assert breaker.state == "closed"
    assert not breaker.try_one()


def test_the_while_doubles_up_to_a_bound(clock: FakeClock) -> None:
    """Each trial that fails doubles it; a success makes it short again."""
    breaker = Breaker(clock)
    _fail(breaker)
    rests = [breaker.rest_ms]
    for _ in range(7):
        _pass(clock, breaker.rest_ms)
        breaker.try_one()
        breaker.fail()
        rests.append(breaker.rest_ms)
    assert rests == [1_000, 2_000, 4_000, 8_000, 16_000, OPEN_MS_MAX, OPEN_MS_MAX, OPEN_MS_MAX]
    _pass(clock, breaker.rest_ms)
    breaker.succeed()
    _fail(breaker)
    assert breaker.rest_ms == OPEN_MS_FIRST


def test_a_trial_of_which_nothing_is_heard_is_not_waited_for_forever(clock: FakeClock) -> None:
    """After the longest while another may try."""
    breaker = Breaker(clock)
    _fail(breaker)
    _pass(clock, OPEN_MS_FIRST)
    breaker.try_one()
    assert breaker.rest_ms == OPEN_MS_MAX
    _pass(clock, OPEN_MS_MAX)
    assert breaker.lets_pass


class Machine(RuleBasedStateMachine):
    """Against the rules, written as a list of what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.breaker = Breaker(self.clock)
        self.failures = self.opens = 0
        self.open_until: int | None = None
        self.trial_until = 0

    @property
    def expected(self) -> str:
        """By the drawing in the module's theory."""
        if self.open_until is None:
            return "closed"
        return "open" if self.clock.monotonic_ms() < self.open_until else "half-open"

    @rule(duration_ms=st.integers(0, 40_000))
    def wait(self, duration_ms: int) -> None:
        """Time passes."""
        _pass(self.clock, duration_ms)

    @rule()
    def fail(self) -> None:
        """A request fails."""
        before = self.expected
        self.breaker.fail()
        self.failures += 1
        if before == "half-open" or (before == "closed" and self.failures == FAILURES_MAX):
            self.open_until = self.clock.monotonic_ms() + min(1_000 * 2**self.opens, 30_000)
            self.opens += 1
            self.trial_until = 0

    @rule()
    def succeed(self) -> None:
        """A request is answered."""
        self.breaker.succeed()
        self.failures = self.opens = self.trial_until = 0
        self.open_until = None

    @rule()
    def ask(self) -> None:
        """A request goes there, if it may."""
        may = self.expected == "half-open" and self.clock.monotonic_ms() >= self.trial_until
        assert self.breaker.try_one() == may
        if may:
            self.trial_until = self.clock.monotonic_ms() + 30_000

    @rule()
    def release(self) -> None:
        """The trial's client leaves."""
        self.breaker.release()
        self.trial_until = 0

    @invariant()
    def agree(self) -> None:
        """State, and who may pass."""
        assert self.breaker.state == self.expected
        now = self.clock.monotonic_ms()
        may = self.expected == "closed" or (self.expected == "half-open" and now >= self.trial_until)
        assert self.breaker.lets_pass == may
        assert (self.breaker.rest_ms == 0) == may


TestMachine = Machine.TestCase
