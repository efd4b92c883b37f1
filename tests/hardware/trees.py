"""Trees of small files, as the kernel shows them below /sys and /proc."""

from pathlib import Path

GIB = 1 << 30
MEMINFO = (
    "MemTotal:       {total} kB\nMemFree:          1000 kB\nMemAvailable:   {available} kB\nHugePages_Total:       0\n"
)
CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon 0\n\nprocessor\t: 1\nmodel name\t: Xeon 1\n"


def write(root: Path, files: dict[str, str]) -> Path:
    """Make a tree of files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def amd_card(number: int, **more: str | None) -> dict[str, str]:
    """A Radeon as amdgpu shows it; None takes a file away."""
    files = {
        "vendor": "0x1002\n",
        "device": "0x744c\n",
        "uevent": f"DRIVER=amdgpu\nPCI_CLASS=30000\nPCI_SLOT_NAME=0000:0{number + 3}:00.0\n",
        "unique_id": f"9c7d{number}\n",
        "numa_node": "-1\n",
        "mem_info_vram_total": f"{24 * GIB}\n",
        "mem_info_vram_used": f"{6 * GIB}\n",
        "gpu_busy_percent": "37\n",
        "mem_busy_percent": "12\n",
        "hwmon/hwmon5/power1_average": "212000000\n",
        "hwmon/hwmon5/power1_cap": "303000000\n",
        "hwmon/hwmon5/temp1_input": "64500\n",
        **{name.replace("__", "/"): text for name, text in more.items()},
    }
    return {f"class/drm/card{number}/device/{name}": text for name, text in files.items() if text is not None}


def accelerator(number: int, **files: str) -> dict[str, str]:
    """A device of the kernel's class of compute accelerators."""
    return {f"class/accel/accel{number}/device/{name}": text for name, text in files.items()}


INTEL_NPU = {
    "vendor": "0x8086\n",
    "device": "0x643e\n",
    "uevent": "DRIVER=intel_vpu\nPCI_SLOT_NAME=0000:00:0b.0\n",
    "npu_busy_time_us": "1000000\n",
    "npu_memory_utilization": f"{GIB}\n",
}
AMD_NPU = {
    "vendor": "0x1022\n",
    "device": "0x17f0\n",
    "uevent": "DRIVER=amdxdna\nPCI_SLOT_NAME=0000:c5:00.1\n",
    "vbnv": "NPU Strix\n",
    "fw_version": "1.0.0.63\n",
}


def proc(root: Path, *, total_kb: int = 32 << 20, available_kb: int = 24 << 20, **more: str) -> Path:
    """A /proc of a host with two cores and 32 GiB."""
    files = {
        "meminfo": MEMINFO.format(total=total_kb, available=available_kb),
        "cpuinfo": CPUINFO,
        "stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 50 0 50 350 50\ncpu1 50 0 50 350 50\nctxt 5\n",
        "sys/kernel/hostname": "box\n",
        **{name.replace("__", "/"): text for name, text in more.items()},
    }
    return write(root, files)
