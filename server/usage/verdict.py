"""What one look at ledger and rows says: the sums side by side, and a sentence for everything that does not hold."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID

from msgspec import Struct

from quotas.audit import Account, Audit, Held, Tally
from quotas.ledger import Event
from server.usage.writer import gives_way

# As many as keys.lua keeps; beyond it Redis drops the oldest.
SETTLED_LENGTH_MAX = 1_000_000
UNREADABLE_TOLD_MAX = 20
# Writers write within a second, and take over from a dead one within a minute.
EVENT_LATE_MS = 600_000
# Servers take leases back within seconds.
LEASE_LATE_MS = 60_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Window = Literal["day", "month"]


class Line(Struct, frozen=True, kw_only=True):
    """One window of one person: what the budget holds, and what it should hold; tokens, and numbers of requests.

    Attributes:
        window: `2026-11-23` or `2026-11`.
        budget_requests: None where they were not counted from the window's beginning.
    """

    person: str
    window: str
    budget_tokens: int
    row_tokens: int
    event_tokens: int
    reserved_tokens: int
    budget_requests: int | None
    rows: int
    events: int
    held: int


class Breach(Struct, frozen=True, kw_only=True):
    """Something that does not hold.

    Attributes:
        rule: tokens, requests, ended, record, list, budget, lease, unreadable, late, full, clock or person.
        subject: what it is about; the same whenever the same thing is found again.
    """

    rule: str
    subject: str
    sentence: str


class Verdict(Struct, frozen=True, kw_only=True):
    """Whether all is well.

    Attributes:
        looks: how often it was looked until that was sure.
        servers: heard of within the last seconds.
        notes: what is remarkable, and breaks nothing.
    """

    is_well: bool
    looks: int
    servers: int
    running: int
    waiting: int
    events: int
    lines: list[Line]
    broken: list[Breach]
    notes: list[str]


class Sum(NamedTuple):
    """Tokens of so many requests."""

    tokens: int = 0
    requests: int = 0

    def plus(self, tokens: int) -> "Sum":
        """One more."""
        return Sum(self.tokens + tokens, self.requests + 1)


@dataclass(frozen=True, slots=True)
class Look:
    """What was found.

    Attributes:
        names: of people, by their id.
        rows: of the requests that are held or have an event.
        events: not yet written, by request, as the rows that they will be.
        event_count, oldest_event_ms: of all that wait in the stream, readable or not.
        sums: rows per flow and window, without those of `rows` and `events`.
        future_rows: per flow.
        strays: requests that have a record and stand in no list.
    """

    audit: Audit
    names: Mapping[UUID, str]
    rows: Mapping[UUID, Mapping[str, Any]]
    events: Mapping[UUID, Mapping[str, Any]]
    event_count: int
    oldest_event_ms: int | None
    unreadable: Sequence[Event]
    sums: Mapping[tuple[UUID, Window], Sum]
    future_rows: Mapping[UUID, int]
    strays: frozenset[str]


def judge(look: Look) -> Verdict:
    """What this look says."""
    lines: list[Line] = []
    broken = [*_held(look), *_events(look)]
    settled = dict(_settled(look))
    people = {flow for flow, _ in look.sums}
    for account in look.audit.accounts:
        user = id_of(account.flow)
        if user is None:
            sentence = f"The ledger keeps a budget for {account.flow!r}, which is nobody's id."
            broken.append(Breach(rule="person", subject=account.flow, sentence=sentence))
        elif user in people:
            _weigh(look, account, user, settled, lines, broken)
    for user, count in look.future_rows.items():
        sentence = f"{_count(count, 'usage row')} of {_name(look, user)} lie in the future: a clock has jumped."
        broken.append(Breach(rule="clock", subject=str(user), sentence=sentence))
    held = look.audit.held
    running = sum(each.is_running for each in held)
    return Verdict(
        is_well=not broken,
        looks=1,
        servers=look.audit.replicas,
        running=running,
        waiting=len(held) - running,
        events=look.event_count,
        lines=sorted(lines, key=lambda line: (line.person, line.window)),
        broken=broken,
        notes=_notes(look),
    )


def _settled(look: Look) -> Iterator[tuple[UUID, tuple[Mapping[str, Any], bool]]]:
    """The rows that requests have or will have, of those looked at one by one; and whether it is there already."""
    held = {id_of(each.id) for each in look.audit.held}
    for request in look.rows.keys() | look.events.keys():
        row, event = look.rows.get(request), look.events.get(request)
        is_written = row is not None and not (event is not None and gives_way(row, event))
        known = row if is_written else event
        # One that is held had been abandoned, and entered again; if its end is known, it is counted as held.
        if known is not None and (request not in held or known["outcome"] == "abandoned"):
            yield request, (known, is_written)


def _weigh(
    look: Look,
    account: Account,
    user: UUID,
    settled: Mapping[UUID, tuple[Mapping[str, Any], bool]],
    lines: list[Line],
    broken: list[Breach],
) -> None:
    """The two windows of one person."""
    both: tuple[tuple[Window, Tally], ...] = (("day", account.day), ("month", account.month))
    for window, tally in both:
        first, until = span(window, tally.which, account.since_ms)
        written, unwritten = look.sums.get((user, window), Sum()), Sum()
        for row, is_written in settled.values():
            if row["user_id"] == user and first <= row["started_at"] < until:
                tokens = row["input_tokens"] + row["output_tokens"]
                written, unwritten = (
                    (written.plus(tokens), unwritten) if is_written else (written, unwritten.plus(tokens))
                )
        reserved = Sum()
        for each in look.audit.held:
            if each.flow == account.flow and getattr(each, window) == tally.which:
                reserved = reserved.plus(each.reserved)
        line = Line(
            person=_name(look, user),
            window=title(window, tally.which),
            budget_tokens=tally.tokens,
            row_tokens=written.tokens,
            event_tokens=unwritten.tokens,
            reserved_tokens=reserved.tokens,
            budget_requests=tally.requests,
            rows=written.requests,
            events=unwritten.requests,
            held=reserved.requests,
        )
        lines.append(line)
        broken += _unequal(line)


def _unequal(line: Line) -> Iterator[Breach]:
    subject = f"{line.person} {line.window}"
    surplus = line.budget_tokens - line.row_tokens - line.event_tokens - line.reserved_tokens
    if surplus:
        yield Breach(
            rule="tokens",
            subject=subject,
            sentence=f"The budget of {line.person} for {line.window} holds {line.budget_tokens} tokens: "
            f"{_more_or_less(surplus)} than the {line.row_tokens} of usage rows, {line.event_tokens} of events not yet "
            f"written and {line.reserved_tokens} reserved.",
        )
    if line.budget_requests is None:
        return
    missing = line.budget_requests - line.rows - line.events - line.held
    if missing:
        known = f"{line.rows} have a row, {line.events} an event not yet written, {line.held} wait or run"
        what = f"{missing} without a usage row" if missing > 0 else f"{-missing} more than were admitted"
        yield Breach(
            rule="requests",
            subject=subject,
            sentence=f"{line.person} was admitted {_count(line.budget_requests, 'time')} in {line.window}: {known}; "
            f"that is {what}.",
        )


def _held(look: Look) -> Iterator[Breach]:
    """What is wrong with requests that wait or run."""
    audit = look.audit
    budgets = {account.flow for account in audit.accounts}
    for each in audit.held:
        place = f"{'runs' if each.is_running else 'waits'} on {each.engine}"
        request = id_of(each.id)
        known = None if request is None else look.rows.get(request) or look.events.get(request)
        if not each.flow:
            sentence = f"Request {each.id} {place} for the ledger, which has no record of it: what it reserved is lost."
            yield Breach(rule="record", subject=each.id, sentence=sentence)
        elif each.flow not in budgets:
            sentence = f"Request {each.id} {place} and reserves {each.reserved} tokens in a budget that is not there."
            yield Breach(rule="budget", subject=each.id, sentence=sentence)
        if known is not None and known["outcome"] != "abandoned":
            sentence = f"Request {each.id} {place} for the ledger, and its usage row says {known['outcome']}."
            yield Breach(rule="ended", subject=each.id, sentence=sentence)
        if audit.replicas and _lateness_ms(audit, each) > LEASE_LATE_MS:
            sentence = f"Request {each.id} {place} under a lease that ended long ago, and no server takes it back."
            yield Breach(rule="lease", subject=each.id, sentence=sentence)
    for stray in sorted(look.strays):
        sentence = f"Request {stray} has a record in the ledger, and neither waits nor runs: it never ends."
        yield Breach(rule="list", subject=stray, sentence=sentence)


def _events(look: Look) -> Iterator[Breach]:
    """What is wrong with the way from the ledger to the rows."""
    for event in look.unreadable[:UNREADABLE_TOLD_MAX]:
        about = event.fields.get("id", "an unknown request")[:100]
        why = event.fields.get("why", "")[:200]
        sentence = f"The usage event of {about} was set aside, since no row can be made of it: {why}"
        yield Breach(rule="unreadable", subject=event.position, sentence=sentence)
    if look.event_count >= SETTLED_LENGTH_MAX:
        sentence = f"{look.event_count} events wait to be written: Redis drops the oldest to make room."
        yield Breach(rule="full", subject="settled", sentence=sentence)
    age_ms = 0 if look.oldest_event_ms is None else look.audit.now_ms - look.oldest_event_ms
    if look.audit.replicas and age_ms > EVENT_LATE_MS:
        events, minutes = _count(look.event_count, "event"), age_ms // 60_000
        sentence = f"{events} waited up to {minutes} minutes to be written, although servers run and Postgres answers."
        yield Breach(rule="late", subject="settled", sentence=sentence)


def _notes(look: Look) -> list[str]:
    notes = []
    orphans = sum(_lateness_ms(look.audit, each) > 0 for each in look.audit.held)
    if orphans and not look.audit.replicas:
        notes.append(f"{_count(orphans, 'request')} ran on a server that is gone; the next server settles that.")
    people = {flow for flow, _ in look.sums}
    gone = sum((user := id_of(account.flow)) is not None and user not in people for account in look.audit.accounts)
    if gone:
        notes.append(f"{_count(gone, 'budget')} of people who were deleted, with their rows, cannot be compared.")
    if len(look.unreadable) > UNREADABLE_TOLD_MAX:
        notes.append(f"{len(look.unreadable) - UNREADABLE_TOLD_MAX} more events were set aside.")
    return notes


def id_of(text: str) -> UUID | None:
    """The id of a person, or of a request, that this is."""
    try:
        return UUID(text)
    except ValueError:
        return None


def span(window: Window, which: int, since_ms: int) -> tuple[datetime, datetime]:
    """When a window begins, as far as its budget counts it, and ends."""
    if window == "day":
        first, until = EPOCH + timedelta(days=which), EPOCH + timedelta(days=which + 1)
    else:
        first, until = (EPOCH.replace(year=1970 + month // 12, month=month % 12 + 1) for month in (which, which + 1))
    return max(first, EPOCH + timedelta(milliseconds=since_ms)), until


def title(window: Window, which: int) -> str:
    """The name of a window."""
    return span(window, which, 0)[0].strftime("%Y-%m-%d" if window == "day" else "%Y-%m")


def _lateness_ms(audit: Audit, held: Held) -> int:
    """Since its lease ended; below 0 where it has not, or where there is none."""
    return audit.now_ms - held.deadline_ms if held.is_running else -1


def _name(look: Look, user: UUID) -> str:
    return look.names.get(user, str(user))


def _more_or_less(surplus: int) -> str:
    return f"{surplus} more" if surplus > 0 else f"{-surplus} less"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def lasting(verdicts: Sequence[Verdict]) -> Verdict:
    """The last of several looks, with what all of them found."""
    last = verdicts[-1]
    found: defaultdict[tuple[str, str], int] = defaultdict(int)
    for verdict in verdicts:
        for breach in {(breach.rule, breach.subject) for breach in verdict.broken}:
            found[breach] += 1
    broken = [breach for breach in last.broken if found[breach.rule, breach.subject] == len(verdicts)]
    return Verdict(
        is_well=not broken,
        looks=len(verdicts),
        servers=last.servers,
        running=last.running,
        waiting=last.waiting,
        events=last.events,
        lines=last.lines,
        broken=broken,
        notes=last.notes,
    )
