"""What one process of llama.cpp is shown of the devices; and what the llama.cpp of this machine says of them."""

from server.embedded import llama_devices
from server.embedded.llama_devices import NOTHING, Seen, environment, read, usable


async def test_llama_cpp_is_asked() -> None:
    """The real one answers with at least its CPU, which is no device that models could be placed on."""
    seen = await llama_devices.ask()
    assert "CPU" in {one.name for one in seen}
    assert usable([one for one in seen if one.name == "CPU"], {"GPU-1": ""}) == {}


def test_devices_are_found_by_their_address() -> None:
    """However either side writes it; what llama.cpp does not see cannot be used."""
    seen = read('[["CUDA0", "0000:41:00.0"], ["CUDA1", "0000:C1:00.0"], ["CPU", ""]]')
    found = usable(seen, {"GPU-a": "0000:c1:00.0", "GPU-b": "0000:41:00.0", "GPU-c": "0000:ff:00.0", "GPU-d": ""})
    assert found == {"GPU-a": Seen("CUDA1", "0000:c1:00.0"), "GPU-b": Seen("CUDA0", "0000:41:00.0")}


def test_cuda_is_told_uuids_and_the_others_numbers() -> None:
    """Only the chosen devices are shown, and nothing of another back end."""
    assert environment({"GPU-a": Seen("CUDA1"), "GPU-b": Seen("CUDA0")}, {}) == NOTHING | {
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"
    }
    assert environment({"AMD-a": Seen("ROCm1")}, {}) == NOTHING | {"HIP_VISIBLE_DEVICES": "1"}
    assert environment({"AMD-a": Seen("Vulkan2")}, {}) == NOTHING | {"GGML_VK_VISIBLE_DEVICES": "2"}
    assert environment({}, {}) == NOTHING


def test_numbers_count_within_what_is_shown_already() -> None:
    """Where we are shown the third and the sixth GPU only, the second of these is the sixth."""
    assert environment({"AMD-a": Seen("ROCm1")}, {"HIP_VISIBLE_DEVICES": "2,5"})["HIP_VISIBLE_DEVICES"] == "5"
