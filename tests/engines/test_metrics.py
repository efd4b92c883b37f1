"""What engines say of themselves: pages as vLLM, SGLang, llama-server and TGI write them, and rubbish."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from redis.asyncio import Redis

from quotas.ledger import Ledger
from server.engines.metrics import read_pressure
from server.engines.openai_compatible import OpenAICompatible
from server.messages import Pressure
from server.settings import Settings
from tests.conftest import MakeBox
from tests.engines.raw_engine import Raw, reply, serve_raw

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

VLLM = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 8834.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 128.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-8B"} 7.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-8B"} 0.9712
# HELP vllm:num_preemptions_total Cumulative number of preemption from the engine.
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="Qwen/Qwen3-8B"} 12.0
# HELP vllm:num_preemptions_created Cumulative number of preemption from the engine.
# TYPE vllm:num_preemptions_created gauge
vllm:num_preemptions_created{engine="0",model_name="Qwen/Qwen3-8B"} 1.7954109634e+09
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",engine="0",\
gpu_memory_utilization="0.9",num_cpu_blocks="None",num_gpu_blocks="27644",swap_space="4"} 1.0
# HELP vllm:request_success_total Count of successfully processed requests.
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="Qwen/Qwen3-8B"} 3.0
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="Qwen/Qwen3-8B"} 0.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="Qwen/Qwen3-8B"} 140.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="Qwen/Qwen3-8B"} 140.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="Qwen/Qwen3-8B"} 12.5
"""
# With data parallelism every engine core has a row.
VLLM_PARALLEL = """\
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="1",model_name="m"} 3.0
# TYPE vllm:num_preemptions counter
vllm:num_preemptions_total{engine="0",model_name="m"} 1.0
vllm:num_preemptions_total{engine="1",model_name="m"} 4.0
"""
SGLANG = """\
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="meta-llama/Llama-3.1-8B-Instruct",tp_rank="0"} 162.0
# HELP sglang:num_queue_reqs The number of requests in the waiting queue.
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{model_name="meta-llama/Llama-3.1-8B-Instruct",tp_rank="0"} 2826.0
# HELP sglang:num_retracted_reqs The number of retracted requests.
# TYPE sglang:num_retracted_reqs gauge
sglang:num_retracted_reqs{model_name="meta-llama/Llama-3.1-8B-Instruct",tp_rank="0"} 3.0
# HELP sglang:token_usage The token usage.
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="meta-llama/Llama-3.1-8B-Instruct",tp_rank="0"} 0.28
# HELP sglang:max_total_num_tokens Maximum total number of tokens in the KV cache pool.
# TYPE sglang:max_total_num_tokens gauge
sglang:max_total_num_tokens{model_name="meta-llama/Llama-3.1-8B-Instruct",tp_rank="0"} 447512.0
"""
LLAMA_SERVER = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 512
# HELP llamacpp:predicted_tokens_seconds Average generation throughput in tokens/s.
# TYPE llamacpp:predicted_tokens_seconds gauge
llamacpp:predicted_tokens_seconds 31.4159
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 4
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 1
"""
TGI = """\
# TYPE tgi_request_count counter
tgi_request_count 88
# TYPE tgi_queue_size gauge
tgi_queue_size 5
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 32
# TYPE tgi_request_duration histogram
tgi_request_duration_bucket{le="0.2"} 1
tgi_request_duration_bucket{le="+Inf"} 88
tgi_request_duration_sum 101.25
tgi_request_duration_count 88
"""
PAGES = {
    VLLM: Pressure(waiting=7, preempted=12, kv_tokens=16 * 27_644),
    VLLM_PARALLEL: Pressure(waiting=5, preempted=5),
    SGLANG: Pressure(waiting=2_826, preempted=3, kv_tokens=447_512),
    LLAMA_SERVER: Pressure(waiting=1),
    TGI: Pressure(waiting=5),
}


@pytest.mark.parametrize(("page", "said"), PAGES.items(), ids=["vLLM", "vLLM DP", "SGLang", "llama-server", "TGI"])
def test_every_engine_is_understood(page: str, said: Pressure) -> None:
    """Each in its own words: how many wait, how many were thrown out, how much memory there is."""
    assert read_pressure(page) == said
    assert read_pressure(page.replace("\n", "\r\n")) == said
    assert read_pressure(page.rstrip("\n")) == said


@pytest.mark.parametrize(
    "page",
    [
        "",
        "# nothing\n",
        "process_cpu_seconds_total 3.5\n",
        "vllm:num_requests_running 3\n",
        "vllm:num_requests_waiting NaN\n",
        "vllm:num_requests_waiting -1\n",
        "vllm:num_requests_waiting +Inf\n",
        "vllm:num_requests_waiting 1e300\n",
        "vllm:num_requests_waiting 1\nvllm:num_preemptions_total NaN\n",
    ],
)
def test_a_page_without_a_number_to_believe_says_nothing(page: str) -> None:
    """No queue, or one that cannot be."""
    assert read_pressure(page) is None


@pytest.mark.parametrize("blocks", ["None", "", "²", "-5", "1.5", "9" * 400, "0"], ids=repr)
def test_a_memory_that_cannot_be_read_is_unknown(blocks: str) -> None:
    """What else the page says still counts, or the page says nothing; no failure comes of it."""
    info = f'vllm:cache_config_info{{block_size="16",num_gpu_blocks="{blocks}"}} 1.0\n'
    pressure = read_pressure(info + "vllm:num_requests_waiting 2\n")
    assert pressure in {None, Pressure(waiting=2)}


@given(st.text(max_size=200) | st.text('{}="\\, \n#:_abcv1e9.-+NaIinf', max_size=60))
def test_any_text_is_a_page_or_none(page: str) -> None:
    """ValueError is the only way in which reading fails."""
    try:
        pressure = read_pressure(page)
    except ValueError:
        return
    assert pressure is None or min(pressure.waiting, pressure.preempted, pressure.kv_tokens) >= 0


def adapter(raw: Raw) -> OpenAICompatible:
    """The engine at this address."""
    return OpenAICompatible(raw.url, slots=4, silence_ms_max=500)


async def test_the_page_lies_outside_of_v1() -> None:
    """It is asked every time, and tells the pool of memory as well."""
    async with serve_raw() as raw:
        raw.answers["/metrics"] = [reply(VLLM.encode(), kind=PROMETHEUS)]
        engine = adapter(raw)
        assert await engine.pressure() == PAGES[VLLM]
        assert await engine.pressure() == PAGES[VLLM]
        assert engine.kv_tokens == 442_304
        assert raw.paths() == ["/metrics"] * 2
        await engine.close()


RUBBISH = {
    "not there": reply(b"", "404 Not Found"),
    "switched off": reply(b'{"error":{"code":501}}', "501 Not Implemented"),
    "locked": reply(b"", "401 Unauthorized"),
    "no metrics": reply(b"<html><body>{}</body></html>", kind="text/html"),
    "no text": reply(b"\xff\xfe\x00"),
    "no queue": reply(b"process_cpu_seconds_total 3.5\n", kind=PROMETHEUS),
    "no numbers": reply(b"vllm:num_requests_waiting many\n", kind=PROMETHEUS),
    "open label": reply(b'vllm:num_requests_waiting{a="b 3\n', kind=PROMETHEUS),
    "a redirect": reply(b"", "302 Found", Location="http://elsewhere.invalid/metrics"),
}


@pytest.mark.parametrize("answer", RUBBISH.values(), ids=RUBBISH.keys())
async def test_an_engine_without_metrics_is_not_asked_again(answer: bytes) -> None:
    """Whatever is at that address instead, nothing is raised, and the engine's log stays quiet."""
    async with serve_raw() as raw:
        raw.answers["/metrics"] = [answer]
        engine = adapter(raw)
        assert [await engine.pressure() for _ in range(3)] == [None] * 3
        assert raw.paths() == ["/metrics"]
        await engine.close()


async def test_an_engine_that_is_away_is_asked_again() -> None:
    """Being out of reach says nothing of what it has."""
    async with serve_raw() as raw:
        raw.answers["/metrics"] = [b""]
        engine = adapter(raw)
        assert await engine.pressure() is None
        raw.answers["/metrics"] = [reply(TGI.encode(), kind=PROMETHEUS)]
        assert await engine.pressure() == PAGES[TGI]
        await engine.close()


async def test_a_queue_inside_of_the_engine_takes_slots_away_and_its_end_gives_them_back(
    make_box: MakeBox, settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the engine's page to the window that all replicas use."""
    monkeypatch.setattr("server.engines.pool.PRESSURE_EVERY_MS", 20)
    monkeypatch.setattr("server.sharing.gate.TEND_MS", 20)
    async with serve_raw() as raw:
        raw.answers["/metrics"] = [reply(VLLM.encode(), kind=PROMETHEUS)]
        box = await make_box(replace(settings, engines=(raw.url,), engine_slots=40))
        ledger = Ledger(redis)

        async def slots_are(expected: int) -> None:
            while [engine.slots for engine in (await ledger.view()).engines] != [expected]:
                await box.clock.sleep_ms(10)

        await slots_are(36)
        # The next word counts five seconds later: as if that time had passed.
        key = f"wf:{{box}}:window:{raw.url.split('/')[2]}"
        await redis.hincrby(key, "trimmed_ms", -5_000)
        await slots_are(32)
        assert await redis.hget(key, "kv_tokens") in {"0", "442304"}
