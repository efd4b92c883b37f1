"""Which of the box's devices llama.cpp can use, and how one process of it is shown some of them only.

llama.cpp numbers what its back ends find, and a wheel may have been built for CUDA, ROCm, Vulkan or none of them, so
it is asked: in a process of its own, since asking loads the drivers and takes memory on every GPU. It tells for each
device its name (`CUDA0`, `ROCm1`, `Vulkan0`) and, where the back end knows it, its PCI address as `device_id`
(ggml-backend.h, `ggml_backend_dev_props`; seen in xllamacpp 2026.10), by which it is found in the list of the hardware.

What hides devices is read by the drivers or the back end before anything else:

- CUDA: CUDA_VISIBLE_DEVICES, by UUID (`GPU-...`, `MIG-...`; CUDA C++ Programming Guide, "CUDA Environment Variables").
- ROCm: HIP_VISIBLE_DEVICES, by number (ROCm's "GPU isolation techniques").
- Vulkan: GGML_VK_VISIBLE_DEVICES, by number (ggml-vulkan.cpp). Its numbers count all of Vulkan's devices, the names
  only those that it took; they are the same where no device was left out.

Numbers count within what the variable shows already, so one that is set keeps its meaning.
"""

import asyncio
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

ASK_S_MAX = 30
NUMBERED = re.compile(r"(CUDA|ROCm|Vulkan)(\d+)")
VARIABLES = {"CUDA": "CUDA_VISIBLE_DEVICES", "ROCm": "HIP_VISIBLE_DEVICES", "Vulkan": "GGML_VK_VISIBLE_DEVICES"}
# What shows no device at all. Vulkan's back end ends its process at a number that there is not.
NOTHING = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1", "GGML_VK_VISIBLE_DEVICES": ""}
# Only xllamacpp and the standard library: what it prints is a line for us.
QUESTION = (
    "import json, xllamacpp; "
    "print(json.dumps([[device['name'], device['device_id'] or ''] for device in xllamacpp.get_device_info()]))"
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A device as llama.cpp lists it; `pci_address` is empty where its back end does not tell."""

    name: str
    pci_address: str = ""


async def ask() -> list[Seen]:
    """What llama.cpp sees; nothing where it cannot say, which is logged."""
    program = await asyncio.create_subprocess_exec(
        *[sys.executable, "-I", "-c", QUESTION],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(program.communicate(), ASK_S_MAX)
        return read(output.decode().splitlines()[-1])
    except (TimeoutError, IndexError, ValueError, TypeError) as error:
        log.warning("llama.cpp does not tell its devices", reason=type(error).__name__)
        return []
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


def read(line: str) -> list[Seen]:
    """The answer to QUESTION. Raises ValueError or TypeError for another."""
    return [Seen(str(name), str(address).lower()) for name, address in json.loads(line)]


def usable(seen: Sequence[Seen], devices: Mapping[str, str]) -> dict[str, Seen]:
    """Which devices llama.cpp can be given, by uuid.

    Args:
        devices: the PCI address of each, by uuid.
    """
    by_address = {one.pci_address: one for one in seen if one.pci_address and NUMBERED.fullmatch(one.name)}
    return {uuid: by_address[address.lower()] for uuid, address in devices.items() if address.lower() in by_address}


def environment(chosen: Mapping[str, Seen], present: Mapping[str, str]) -> dict[str, str]:
    """The variables with which a process sees the chosen devices and no others.

    Args:
        chosen: by uuid.
        present: our own environment.
    """
    names = [(NUMBERED.fullmatch(one.name), uuid) for uuid, one in chosen.items()]
    found: dict[str, list[str]] = {}
    for match, uuid in names:
        assert match is not None, "usable gave it"
        kind, number = match[1], int(match[2])
        variable = VARIABLES[kind]
        before = [word for word in present.get(variable, "").split(",") if word]
        # Numbers count within what is shown already.
        shown = before[number] if number < len(before) else str(number)
        found.setdefault(variable, []).append(uuid if kind == "CUDA" else shown)
    return NOTHING | {variable: ",".join(words) for variable, words in found.items()}
