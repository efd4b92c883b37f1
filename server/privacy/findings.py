"""What detectors find in an outbound body, and whether anybody can be sure that it is all.

A detector that failed, that ran out of time, or that is missing has found nothing, and that must never read like
"there is nothing". So a `Verdict` has two halves: the findings, and `unclear`, the sentence that says why they may
not be all. Whoever decides treats unclear as local.

Findings of different detectors are united: none can talk another's away.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import msgspec

from server.clock import Clock
from server.deadline import first_of
from server.privacy.payload import Part

Kind = Literal["secret", "personal", "code", "file"]

# Above this nobody looks: the detectors would take longer than anybody waits.
SIZE_MAX_BYTES = 1024 * 1024


class Finding(msgspec.Struct, frozen=True):
    """Something in a part that may not leave as it is.

    Attributes:
        kind: what the policy says something about.
        type: what it is, in capitals (`EMAIL`, `AWS_KEY`); `server.privacy.words.words_for` says it in plain words.
        part: index of the part.
        start: first code point of it in the part's text.
        end: one past the last; `start < end`.
        detector: the name of who found it; several are joined with `+`.
        score: how sure the detector is, from 0 to 1.
    """

    kind: Kind
    type: str
    part: int
    start: int
    end: int
    detector: str
    score: float = 1.0


class Verdict(msgspec.Struct, frozen=True):
    """What is known about a body.

    Attributes:
        findings: what was found, by part and position; those of one kind do not overlap.
        detectors: names and versions of the detectors that were asked, also of those that failed.
        unclear: why nobody can be sure that this is all; None if every detector looked at everything.
        took_ms: how long it took.
        failed: names of the detectors that did not look at everything.
    """

    findings: tuple[Finding, ...]
    detectors: dict[str, str]
    unclear: str | None
    took_ms: int
    failed: tuple[str, ...] = ()

    def of(self, kind: Kind) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)


class Unclear(Exception):
    """A detector cannot say that it has looked at everything.

    Attributes:
        sentence: why, for the user. Never holds text of the body.
        findings: what it found nevertheless.
    """

    def __init__(self, sentence: str, findings: Iterable[Finding] = ()) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.findings = tuple(findings)


class Detector(Protocol):
    """Looks for something in the parts of a body."""

    @property
    def name(self) -> str:
        """Its name in verdicts and in the ledger, unique among those asked."""
        ...

    @property
    def version(self) -> str:
        """Changes when its findings may change; written to the ledger."""
        ...

    @property
    def kinds(self) -> frozenset[Kind]:
        """What it can find."""
        ...

    async def find(self, parts: Sequence[Part]) -> list[Finding]:
        """What is in `parts`.

        Raises:
            Unclear: it could not look at everything.
        """
        ...


async def examine(
    parts: Sequence[Part],
    detectors: Sequence[Detector],
    clock: Clock,
    timeout_ms: int,
    *,
    size_max_bytes: int = SIZE_MAX_BYTES,
) -> Verdict:
    """Ask all detectors at once; their names must differ.

    A fault of one, more than `timeout_ms`, or more than `size_max_bytes` of text makes the verdict unclear; what the
    others found counts nevertheless. No fault of a detector is raised.
    """
    began_ms = clock.monotonic_ms()
    versions = {detector.name: detector.version for detector in detectors}
    sentence = _beforehand(parts, detectors, size_max_bytes)
    if sentence is not None:
        return Verdict((), versions, sentence, clock.monotonic_ms() - began_ms, tuple(versions))
    tasks = [asyncio.ensure_future(detector.find(parts)) for detector in detectors]
    all_of_them = asyncio.ensure_future(asyncio.wait(tasks))
    try:
        await first_of(all_of_them, clock, timeout_ms)
        outcomes = [_outcome(detector.name, task, parts) for detector, task in zip(detectors, tasks, strict=True)]
    finally:
        all_of_them.cancel()
        for task in tasks:
            task.cancel()
    reasons = {name: reason for name, (_, reason) in zip(versions, outcomes, strict=True) if reason is not None}
    return Verdict(
        merged(finding for findings, _ in outcomes for finding in findings),
        versions,
        " ".join(dict.fromkeys(reasons.values())) or None,
        clock.monotonic_ms() - began_ms,
        tuple(reasons),
    )


def _beforehand(parts: Sequence[Part], detectors: Sequence[Detector], size_max_bytes: int) -> str | None:
    """Why nobody needs to be asked."""
    if not detectors:
        return "No detector is set."
    if sum(len(part.text.encode(errors="surrogatepass")) for part in parts) > size_max_bytes:
        return f"The request is larger than the {size_max_bytes} bytes that are looked through."
    return None


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding where several of one kind overlap: it spans all of them and is what the surest one says it is."""
    result: list[Finding] = []
    for finding in sorted(findings, key=lambda one: (one.kind, one.part, one.start, -one.end)):
        last = result[-1] if result else None
        if last is None or last.kind != finding.kind or last.part != finding.part or finding.start >= last.end:
            result.append(finding)
            continue
        surer = max(last, finding, key=lambda one: (one.score, one.end - one.start))
        names = sorted({*last.detector.split("+"), *finding.detector.split("+")})
        result[-1] = msgspec.structs.replace(
            surer, start=last.start, end=max(last.end, finding.end), detector="+".join(names)
        )
    return tuple(sorted(result, key=lambda one: (one.part, one.start, one.end, one.kind)))


def _outcome(
    name: str, task: asyncio.Future[list[Finding]], parts: Sequence[Part]
) -> tuple[Sequence[Finding], str | None]:
    """What a detector found, and why that may not be all."""
    if not task.done():
        return (), f"The detector {name} took too long."
    if task.cancelled():
        return (), f"The detector {name} was stopped."
    match task.exception():
        case None:
            findings: Sequence[Finding] = task.result()
            reason = None
        case Unclear() as fault:
            findings, reason = fault.findings, fault.sentence
        case _:
            return (), f"The detector {name} failed."
    sound = [finding for finding in findings if _is_sound(finding, parts)]
    if len(sound) < len(findings):
        reason = f"The detector {name} found something outside the text."
    return sound, reason


def _is_sound(finding: Finding, parts: Sequence[Part]) -> bool:
    return 0 <= finding.part < len(parts) and 0 <= finding.start < finding.end <= len(parts[finding.part].text)
