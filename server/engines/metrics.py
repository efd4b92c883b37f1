"""What engines tell of themselves on their Prometheus page, each in its own words.

Names as of vLLM 0.11, SGLang 0.5, llama-server (with --metrics) and text-generation-inference 3.3; what an engine does
not say is taken as nothing to say.
"""

import re
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from server.messages import Pressure

WAITING = frozenset(
    {"vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred", "tgi_queue_size"}
)
PREEMPTED = frozenset({"vllm:num_preemptions_total", "vllm:num_preemptions", "sglang:num_retracted_reqs"})
KV_TOKENS = frozenset({"sglang:max_total_num_tokens"})
RUNNING = frozenset(
    {"vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing", "tgi_batch_current_size"}
)
CACHE_CONFIG = "vllm:cache_config_info"
NUMBER = re.compile("[0-9]{1,9}")
SHARE = re.compile(r"[01](\.[0-9]{1,9})?")


def read_pressure(page: str) -> Pressure | None:
    """What the page says; None where it says nothing of a queue.

    Raises:
        ValueError: it is no Prometheus page.
    """
    try:
        samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    except (ValueError, IndexError, KeyError, TypeError) as error:  # what the parser raises on rubbish
        raise ValueError("no Prometheus page") from error
    return _pressure(samples)


def read_running(page: str) -> int | None:
    """How many requests the page says are being answered; None where it does not say."""
    try:
        samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    except (ValueError, IndexError, KeyError, TypeError):
        return None
    values = [sample.value for sample in samples if sample.name in RUNNING]
    return int(sum(values)) if values and all(0 <= value < 1 << 53 for value in values) else None


def read_memory_share(page: str) -> float | None:
    """The part of its GPUs that vLLM was told to take (`--gpu-memory-utilization`); None where it does not say."""
    try:
        samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    except (ValueError, IndexError, KeyError, TypeError):
        return None
    told = [sample.labels.get("gpu_memory_utilization", "") for sample in samples if sample.name == CACHE_CONFIG]
    shares = [float(share) for share in told if SHARE.fullmatch(share)]
    return shares[0] if shares and 0 < shares[0] <= 1 else None


def _pressure(samples: Iterable[Sample]) -> Pressure | None:
    waiting: float | None = None
    preempted = kv_tokens = 0.0
    for sample in samples:
        if sample.name in WAITING:
            waiting = (waiting or 0) + sample.value
        elif sample.name in PREEMPTED:
            preempted += sample.value
        elif sample.name in KV_TOKENS:
            kv_tokens = max(kv_tokens, sample.value)
        elif sample.name == CACHE_CONFIG:
            kv_tokens = max(kv_tokens, _kv_tokens(sample.labels))
    numbers = (waiting or 0, preempted, kv_tokens)
    if waiting is None or not all(0 <= number < 1 << 53 for number in numbers):
        return None
    return Pressure(waiting=int(waiting), preempted=int(preempted), kv_tokens=int(kv_tokens))


def _kv_tokens(labels: dict[str, str]) -> float:
    size, blocks = labels.get("block_size", ""), labels.get("num_gpu_blocks", "")
    is_known = NUMBER.fullmatch(size) and NUMBER.fullmatch(blocks)
    return float(int(size) * int(blocks)) if is_known else 0.0
