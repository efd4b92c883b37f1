"""What is measured of a day, and against what.

Leaders' first tokens count from the moment when the council was asked; one that never came counts as long as it was
waited for. The light user's are set beside the same requests on an empty box. A council is asked idle when nobody's
request ran or waited at that moment. Throughput is what clients got while both heavy users wanted more than there was.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import mean

from benchmarks.councils.council import Council, Played
from benchmarks.councils.day import LIGHT, PHASES, WEIGHTS
from benchmarks.sharing import metrics
from benchmarks.sharing.ours import Figures
from benchmarks.sharing.pictures import Points, lines
from benchmarks.sharing.replay import SAMPLE_MS

WARM_UP_MS = 60_000.0
HOUR_MS = 3_600_000.0
BINS = 96
# Loads of which fewer councils were asked are not drawn.
COUNCILS_MIN = 5
LOAD_MAX = 20
# There was nothing to measure.
NONE = float("nan")


def _leader_waits_ms(played: Played, *, in_rush: bool) -> list[float]:
    records = [
        council.leader.record
        for council in played.councils
        if council.leader.record is not None and (council.habit.phase == "rush") == in_rush
    ]
    return metrics.ttfts_ms(records, None, played.result.ended_ms)


def _light_waits_ms(played: Played, ids: Iterable[str]) -> list[float]:
    known = {record.job.id: record for record in played.result.records}
    return metrics.ttfts_ms([known[each] for each in ids if each in known], None, played.result.ended_ms)


def _beside_councils(played: Played, *, in_rush: bool) -> list[str]:
    """Light requests that came while a council sat."""
    sat = [(each.asked_ms, each.ended_ms if each.ended_ms >= 0 else played.result.ended_ms) for each in played.councils]
    return [
        record.job.id
        for record in played.result.records
        if record.job.client == LIGHT
        and (played.day.phase_at(record.arrived_ms) == "rush") == in_rush
        and any(begins <= record.arrived_ms < ends for begins, ends in sat)
    ]


def _light(played: Played, alone: Played) -> Figures:
    figures = {}
    for name, in_rush in (("", False), (", rush", True)):
        ids = _beside_councils(played, in_rush=in_rush)
        got, lone = _light_waits_ms(played, ids), _light_waits_ms(alone, ids)
        for share in (50, 95):
            figures[f"light p{share} ms{name}"] = metrics.quantile(got, share / 100)
            figures[f"light p{share} / alone{name}"] = metrics.quantile(got, share / 100) / metrics.quantile(
                lone, share / 100
            )
    lent = [record for record, was_lent in played.waited if was_lent]
    until_ms = [(each.dispatched_ms if each.dispatched_ms >= 0 else played.result.ended_ms) for each in lent]
    waits_ms = [until - record.arrived_ms for until, record in zip(until_ms, lent, strict=True)]
    return figures | {
        "light without a slot": len(played.waited),
        "of these a member had one": len(lent),
        "until it was taken back, longest ms": max(waits_ms, default=NONE),
        "first token then, longest ms": max(metrics.ttfts_ms(lent, None, played.result.ended_ms), default=NONE),
    }


def _mean(values: Sequence[float]) -> float:
    return mean(values) if values else NONE


def _sizes(played: Played) -> Figures:
    idle = [council for council in played.councils if not council.others]
    figures = {
        "size / most, idle": _share(idle),
        **{
            f"size / most, {phase}": _share([each for each in played.councils if each.habit.phase == phase])
            for phase in PHASES
        },
    }
    hours = played.day.hours
    ceilings = [look.ceiling for look in played.looks if look.ceiling is not None]
    by_habit: dict[object, list[int]] = {}
    for council in played.councils:
        by_habit.setdefault(council.habit, []).append(council.allocation.size)
    changes = sum(before != after for sizes in by_habit.values() for before, after in pairwise(sizes))
    return figures | {
        "steps of the ceiling an hour": sum(before != after for before, after in pairwise(ceilings)) / hours,
        "other size than the last, part": changes / max(1, len(played.councils) - len(by_habit)),
    }


def _share(councils: Sequence[Council]) -> float:
    """Mean size beside what the same people would get on an idle box."""
    return _mean([each.allocation.size for each in councils]) / _mean([each.size_max for each in councils])


def figures(played: Played, alone: Played, rush: Played) -> Figures:
    """Everything of one day.

    Args:
        alone: the same day without anybody but the light user.
        rush: a time in which both heavy users want more than there is from the beginning on.
    """
    day = played.day
    inside = [sample for sample in rush.result.samples if sample.at_ms >= WARM_UP_MS]
    service = sum(inside[-1].service.values()) - sum(inside[0].service.values())
    calm = [each for each in played.councils if each.habit.phase in {"morning", "day"}]
    members = [call for council in played.councils for call in council.members if call.record is not None]
    revoked = [call for call in members if call.record and call.record.outcome == "revoked"]
    return {
        "leaders p95 s": metrics.quantile(_leader_waits_ms(played, in_rush=False), 0.95) / 1000,
        "leaders p95 s, rush": metrics.quantile(_leader_waits_ms(played, in_rush=True), 0.95) / 1000,
        **_light(played, alone),
        **_sizes(played),
        "Jain, rush of its own": _jain(rush, WARM_UP_MS, rush.result.ended_ms),
        "Jain, rush after the day": _jain(played, *day.span_ms("rush")),
        "service/s, rush of its own": service / (inside[-1].at_ms - inside[0].at_ms) * 1000,
        "questions an hour, morning and day": sum(each.ended_ms >= 0 for each in calm) / _hours(day.hours),
        "answers a question, morning and day": _mean([len(each.done) for each in calm if each.ended_ms >= 0]),
        "seconds to the end, morning and day": _mean(
            [(each.ended_ms - each.asked_ms) / 1000 for each in calm if each.ended_ms >= 0]
        ),
        "members revoked": len(revoked),
        "members late": sum(each.late for each in played.councils),
    }


def _jain(played: Played, begins_ms: float, ends_ms: float) -> float:
    """Of service by weight of those who waited all the time; not a number where that was only one."""
    got = metrics.shares(played.result.samples, begins_ms + SAMPLE_MS, ends_ms - SAMPLE_MS, WEIGHTS)
    return metrics.jain(list(got.values())) if len(got) > 1 else NONE


def _hours(hours: float) -> float:
    return hours * sum(PHASES[phase][1] - PHASES[phase][0] for phase in ("morning", "day"))


def over_time(played: Played) -> dict[str, Points]:
    """Mean size of the councils asked and mean number of running requests, by quarters of an hour of a whole day."""
    width_ms = played.day.ends_ms / BINS
    sizes: dict[int, list[float]] = {}
    load: dict[int, list[float]] = {}
    for council in played.councils:
        sizes.setdefault(int(council.asked_ms / width_ms), []).append(council.allocation.size)
    for look in played.looks:
        load.setdefault(int(look.at_ms / width_ms), []).append(look.running)
    middle = [(number + 0.5) * played.day.hours / BINS for number in range(BINS)]
    return {
        "size of councils": [(middle[number], _mean(sizes[number])) for number in range(BINS) if number in sizes],
        "requests that run": [(middle[number], _mean(load[number])) for number in range(BINS) if number in load],
    }


def by_load(days: Sequence[Played]) -> Points:
    """Mean size by how many requests ran or waited when the council was asked."""
    sizes: dict[int, list[float]] = {}
    for played in days:
        for council in played.councils:
            sizes.setdefault(council.others, []).append(council.allocation.size)
    return [
        (load, _mean(sizes[load])) for load in sorted(sizes) if len(sizes[load]) >= COUNCILS_MIN and load <= LOAD_MAX
    ]


def pictures(days: dict[str, list[Played]]) -> dict[str, str]:
    """All pictures by the names of their files."""
    images = {
        f"council-day-{way.replace(' ', '-')}.svg": lines(
            f"Councils over a day: {way}", "hour", "members of a council, running requests", over_time(played[0])
        )
        for way, played in days.items()
        if way not in {"solo", "alone"}
    }
    curves = {way: by_load(played) for way, played in days.items() if way not in {"solo", "alone"}}
    if all(curves.values()):
        images["council-load.svg"] = lines(
            "Size of a council against load",
            "requests of anybody that run or wait when it is asked (16 slots)",
            "members, on average",
            curves,
        )
    return images
