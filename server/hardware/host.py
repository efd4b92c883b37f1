"""The host itself: its cores and its memory, as far as this server may use them.

From /proc/meminfo, /proc/stat and /proc/cpuinfo (man proc, and Documentation/filesystems/proc.rst for MemAvailable:
what can be had without swapping), and from the limits of the control group that the server runs in, which is what a
container is: memory.max and cpu.max in version 2 (Documentation/admin-guide/cgroup-v2.rst), memory.limit_in_bytes and
cpu.cfs_quota_us in version 1. In a group, what is used is memory.current less inactive_file, since the kernel gives
page cache back first (kubelet counts the same). A group may be limited by any of those around it: the tightest counts.

Temperature is of the CPU's own sensor (hwmon k10temp, coretemp or zenpower). Energy is RAPL's, of all packages, which
since Linux 5.10 only root may read (CVE-2020-8694).
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from server.clock import Clock
from server.hardware.devices import Absent, Device, Sample
from server.hardware.readings import Readings
from server.hardware.sysfs import NUMBER, host_mark, number_or_none, numbered, read_number, read_text, text_or_none

SENSORS = frozenset({"k10temp", "coretemp", "zenpower"})
PACKAGES_MAX = 64
GROUPS_MAX = 32
# Version 1 writes a page less than 2^63 where there is no limit.
NO_LIMIT = 1 << 60
IDLE_FIELDS = (3, 4)  # of a line of /proc/stat: idle and iowait
STAT_FIELDS = 8  # those after it, time as a guest, are counted in the first two


class Host:
    """The provider.

    Args:
        proc: where /proc is.
        sysfs: where /sys is.
    """

    name = "host"

    def __init__(self, clock: Clock, *, proc: Path = Path("/proc"), sysfs: Path = Path("/sys")) -> None:
        self._clock = clock
        self._proc = proc
        self._sysfs = sysfs
        self._times: tuple[int, int] | None = None

    def devices(self) -> Sequence[Device]:
        """The host. Raises Absent where there is no /proc to tell of it (macOS)."""
        described = self._described()
        readings = Readings()
        return [
            Device(
                provider=self.name,
                uuid=f"CPU-{host_mark(self._proc)}",
                kind="cpu",
                vendor=_vendor(described.get("vendor_id", "")),
                name=described.get("model name") or described.get("Hardware") or "CPU",
                memory_bytes=readings.take("memory_bytes", self._memory_bytes),
                memory_is_shared=True,
                cores=readings.take("cores", self._cores),
                absent=readings.absent,
            )
        ]

    def sample(self, device: Device) -> Sample:
        """What it is doing; utilisation since the last sample."""
        readings = Readings()
        memory = readings.take("used_bytes", lambda: self._memory(device))
        if memory is None:
            readings.lacks(readings.absent["used_bytes"], "free_bytes")
        readings.lacks("Linux does not tell", "reserved_bytes", "memory_utilisation_percent", "throttle")
        readings.lacks("only energy is counted", "power_mw", "power_limit_mw")
        readings.lacks("programs on the host are not listed", "processes")
        return Sample(
            uuid=device.uuid,
            at=self._clock.now(),
            used_bytes=memory and memory[0],
            free_bytes=memory and memory[1],
            utilisation_percent=readings.take("utilisation_percent", self._utilisation),
            energy_mj=readings.take("energy_mj", self._energy_mj),
            temperature_c=readings.take("temperature_c", self._temperature_c),
            absent=readings.absent,
        )

    def close(self) -> None:
        """Nothing to let go of."""

    def _described(self) -> dict[str, str]:
        lines = read_text(self._proc / "cpuinfo").splitlines()
        pairs = [(key.strip(), value.strip()) for key, found, value in (line.partition(":") for line in lines) if found]
        return dict(reversed(pairs))  # the first core's

    def _meminfo(self) -> dict[str, int]:
        """In bytes; the file says kB and means KiB."""
        found = re.findall(r"^(\w+):\s+([0-9]{1,15}) kB$", read_text(self._proc / "meminfo"), re.MULTILINE)
        return {name: int(number) * 1024 for name, number in found}

    def _memory_bytes(self) -> int:
        total = self._meminfo().get("MemTotal")
        if total is None:
            raise Absent("meminfo has no MemTotal")
        return min([total, *(limit for _, limit in self._limits())])

    def _memory(self, device: Device) -> tuple[int, int]:
        """Used and free bytes: of the tightest group that has a limit, and never more free than the host has."""
        known = self._meminfo()
        if "MemTotal" not in known or "MemAvailable" not in known:
            raise Absent("meminfo has no MemAvailable")
        available = known["MemAvailable"]
        total = device.memory_bytes if device.memory_bytes is not None else known["MemTotal"]
        free = [available]
        for group, limit in self._limits():
            try:
                free.append(max(0, limit - _used(group)))
            except Absent:
                continue
        left = min(*free, total)
        return total - left, left

    def _limits(self) -> list[tuple[Path, int]]:
        """Groups around this process that limit memory, and their limits in bytes."""
        found = []
        for group in self._groups("memory"):
            for file in ("memory.max", "memory.limit_in_bytes"):
                limit = number_or_none(group / file)
                if limit is not None and limit < NO_LIMIT:
                    found.append((group, limit))
        return found

    def _cores(self) -> int:
        """Those that are online, or fewer where this process is bound to some, or its time is limited."""
        online = len(re.findall(r"^cpu[0-9]+ ", read_text(self._proc / "stat"), re.MULTILINE))
        if not online:
            raise Absent("stat lists no cores")
        limits = [online]
        if self._proc == Path("/proc"):
            limits.append(len(os.sched_getaffinity(0)))
        for group in self._groups("cpu"):
            quota, period = _quota(group)
            if quota > 0 and period > 0:
                limits.append(max(1, -(-quota // period)))
        return min(limits)

    def _groups(self, controller: str) -> Iterator[Path]:
        """Folders of this process' control groups for one controller, from its own outwards."""
        try:
            lines = read_text(self._proc / "self" / "cgroup").splitlines()
        except Absent:
            return
        root = self._sysfs / "fs" / "cgroup"
        for line in lines:
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controllers and controller not in controllers.split(","):
                continue
            base = root / controller if controllers else root
            parts = [part for part in path.split("/") if part and part != ".."][:GROUPS_MAX]
            # In a container the path is often the host's, and the group's own files lie at the root.
            for length in range(len(parts), -1, -1):
                yield base.joinpath(*parts[:length])

    def _utilisation(self) -> int:
        line = read_text(self._proc / "stat").partition("\n")[0].split()
        times = [int(text) for text in line[1 : STAT_FIELDS + 1] if NUMBER.fullmatch(text)]
        if not line or line[0] != "cpu" or len(times) <= max(IDLE_FIELDS):
            raise Absent("stat has no line of all cores")
        then, self._times = self._times, (sum(times), sum(times[place] for place in IDLE_FIELDS))
        if then is None or self._times[0] <= then[0]:
            raise Absent("needs two readings")
        passed, idle = self._times[0] - then[0], max(0, self._times[1] - then[1])
        return max(0, 100 - 100 * idle // passed)

    def _energy_mj(self) -> int:
        packages = list(numbered(self._sysfs / "class" / "powercap", "intel-rapl:"))[:PACKAGES_MAX]
        if not packages:
            raise Absent("no RAPL in /sys/class/powercap")
        return sum(read_number(package / "energy_uj") for package in packages) // 1000

    def _temperature_c(self) -> int:
        for sensor in numbered(self._sysfs / "class" / "hwmon", "hwmon"):
            if text_or_none(sensor / "name") in SENSORS:
                return read_number(sensor / "temp1_input") // 1000
        raise Absent("no sensor of the CPU in /sys/class/hwmon")


def _used(group: Path) -> int:
    """What a group holds and would not give back at once."""
    for current, cache in (("memory.current", "inactive_file"), ("memory.usage_in_bytes", "total_inactive_file")):
        try:
            used = read_number(group / current)
        except Absent:
            continue
        stat = text_or_none(group / "memory.stat") or ""
        cached = re.search(rf"^{cache} ([0-9]{{1,18}})$", stat, re.MULTILINE)
        return max(0, used - (int(cached[1]) if cached else 0))
    raise Absent("the group does not tell what it uses")


def _quota(group: Path) -> tuple[int, int]:
    """Microseconds of CPU time per period; zeros where there is no limit."""
    try:
        quota, _, period = read_text(group / "cpu.max").partition(" ")
    except Absent:
        try:
            return read_number(group / "cpu.cfs_quota_us"), read_number(group / "cpu.cfs_period_us")
        except Absent:
            return 0, 0
    return (int(quota), int(period)) if quota.isdecimal() and period.isdecimal() else (0, 0)


def _vendor(text: str) -> str:
    return {"GenuineIntel": "intel", "AuthenticAMD": "amd"}.get(text, text or "unknown")
