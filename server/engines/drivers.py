"""How engines are told to load and unload: the protocol, and the engines whose routes need no adapter of their own.

- llama-server as a router (started without a model): `GET /models`, `POST /models/load`, `POST /models/unload`. Routes
  and states as in llama.cpp's tools/server/README.md, "Using multiple models" (read at commit 00dc805, 2026). Load
  and unload return before they are done, so the list is watched. A model that sleeps (`--sleep-idle-seconds`) has
  left main memory too, so it counts as cold.
- vLLM's sleep mode: `POST /sleep?level=1`, `POST /wake_up`, `GET /is_sleeping`, with `--enable-sleep-mode` and
  VLLM_SERVER_DEV_MODE=1 (vllm/entrypoints/serve/dev/sleep/api_router.py, read in 2026). Level 1 keeps the weights in
  main memory and drops the KV cache. Newer versions end running requests on sleep (`mode=abort` is their default), so
  `mode=wait` is asked for; older ones take no notice of it. Some answer before they have done it, so it is watched.
- Ollama is its own driver (`ollama.py`), and so is what the server starts itself (`embedded.py`).

Those routes of vLLM change the engine for everybody: they must not be reachable by anybody else.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

import aiohttp
import msgspec
import structlog

from server.clock import Clock
from server.engines.addresses import CheckedResolver
from server.engines.metrics import read_memory_share
from server.engines.openai_compatible import UNREACHABLE, UNREADABLE, error_sentence
from server.engines.places import State
from server.engines.router_files import RouterFile, Sizer, file_of
from server.errors import EngineFailed, EngineTimeout, NotFound, WirthforgeError
from server.messages import ModelMemory

CONNECT_MS_MAX = 5_000
CALL_MS_MAX = 5_000
WATCH_EVERY_MS = 250
# Residency ends a move that takes too long; this is the bound of a driver that is used without it.
MOVE_MS_MAX = 1_800_000
ANSWER_BYTES_MAX = 16 * 1024 * 1024
UNKNOWN = ModelMemory(0, 0)

log = structlog.get_logger(__name__)


class Driver(Protocol):
    """How an engine moves its models. Names are the engine's own.

    Attributes:
        rests_in: where a model is that was unloaded: on disk, or in main memory.
    """

    @property
    def rests_in(self) -> State:
        """See above."""
        ...

    async def states(self) -> dict[str, State]:
        """Every model that could be loaded, and where it is.

        Raises:
            EngineFailed: it cannot be reached or answers rubbish.
        """
        ...

    async def load(self, model: str) -> None:
        """Returns once the model can answer; harmless if it can already.

        Raises:
            NotFound: the engine does not have it.
            EngineFailed, EngineTimeout: it could not be loaded.
        """
        ...

    async def unload(self, model: str) -> None:
        """Returns once its memory is free; harmless if it is.

        Raises:
            EngineFailed, EngineTimeout: it could not be unloaded.
        """
        ...


class Control:
    """Short JSON calls to an engine's own routes.

    Args:
        base_url: the engine's root, without `/v1`.
        name: the engine's, for errors.
    """

    def __init__(self, base_url: str, *, name: str, api_key: str = "") -> None:
        self.base_url = base_url.rstrip("/")
        self.name = name
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, ms_max: int = CALL_MS_MAX) -> Any:  # noqa: ANN401 (an engine may answer anything)
        """The decoded answer. Raises like `post`."""
        return await self._call("GET", path, None, ms_max)

    async def post(self, path: str, body: dict[str, Any] | None = None, ms_max: int = CALL_MS_MAX) -> Any:  # noqa: ANN401
        """The decoded answer; None where it is empty.

        Raises:
            NotFound: the engine has no such route or model.
            EngineTimeout: it took longer than `ms_max`.
            EngineFailed: it cannot be reached, refuses, or answers with something that is no JSON.
        """
        return await self._call("POST", path, body, ms_max)

    async def page(self, path: str) -> str:
        """A page of text; empty where the engine does not give it. Never raises for its faults."""
        try:
            return (await self._ask("GET", path, None, CALL_MS_MAX)).decode(errors="replace")
        except WirthforgeError:
            return ""

    async def _call(self, method: str, path: str, body: dict[str, Any] | None, ms_max: int) -> Any:  # noqa: ANN401
        answer = await self._ask(method, path, body, ms_max)
        if not answer:
            return None
        try:
            return msgspec.json.decode(answer)
        except UNREADABLE as error:
            route = path.partition("?")[0]
            raise EngineFailed(f"Engine {self.name} answers at {route} with something that is no JSON.") from error

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None, ms_max: int) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers | {"Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(force_close=True, resolver=CheckedResolver()),
            )
        timeout = aiohttp.ClientTimeout(total=ms_max / 1000, sock_connect=CONNECT_MS_MAX / 1000)
        try:
            async with self._session.request(
                method, self.base_url + path, json=body, timeout=timeout, allow_redirects=False
            ) as response:
                answer = await _bounded(response)
        except aiohttp.ConnectionTimeoutError as error:
            raise EngineFailed(f"Engine {self.name} cannot be reached.", code=UNREACHABLE) from error
        except TimeoutError as error:
            raise EngineTimeout(f"Engine {self.name} did not answer within {ms_max // 1000} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineFailed(f"Engine {self.name} cannot be reached.", code=UNREACHABLE) from error
        route = path.partition("?")[0]
        if response.status == HTTPStatus.NOT_FOUND:
            raise NotFound(error_sentence(answer) or f"Engine {self.name} has nothing at {route}.")
        if response.status != HTTPStatus.OK:
            raise EngineFailed(f"Engine {self.name} answers {response.status} at {route}. {error_sentence(answer)}")
        return answer

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise EngineFailed(f"An engine answered with more than {ANSWER_BYTES_MAX} bytes.")
    return bytes(body)


class LlamaRouter:
    """llama-server without a model of its own, which starts a process per model.

    Start it with `--no-models-autoload` and `--models-max 0`, so that only one of the two decides.
    """

    rests_in = State.COLD

    def __init__(
        self, base_url: str, *, name: str, clock: Clock, api_key: str = "", sizer: Sizer | None = None
    ) -> None:
        self.control = Control(base_url, name=name, api_key=api_key)
        self._clock = clock
        self._sizer = sizer
        self._files: dict[str, RouterFile] = {}
        self._sizes: dict[RouterFile, ModelMemory] = {}

    async def states(self) -> dict[str, State]:
        """See `Driver`. A model that is still loading is not there yet."""
        listed = await self._list()
        await self._measure(listed)
        return {
            model: State.RESIDENT if status.get("value") == "loaded" else State.COLD for model, status in listed.items()
        }

    def memory(self, model: str) -> ModelMemory:
        """What a model takes, by its file; zeros where its file is not known or not ours to read."""
        file = self._files.get(model)
        return UNKNOWN if file is None else self._sizes.get(file, UNKNOWN)

    async def _measure(self, listed: Mapping[str, dict[str, Any]]) -> None:
        if self._sizer is None:
            return
        told = {model: file_of(status.get("args")) for model, status in listed.items()}
        self._files = {model: file for model, file in told.items() if file is not None}
        for file in {file for file in self._files.values() if file not in self._sizes}:
            # A header is read once; what cannot be read is not known.
            self._sizes[file] = await asyncio.to_thread(_measured, self._sizer, file)

    async def _list(self) -> dict[str, dict[str, Any]]:
        match await self.control.get("/models"):
            case {"data": list(models)}:
                return {
                    model["id"]: model["status"]
                    for model in models
                    if isinstance(model, dict)
                    and isinstance(model.get("id"), str)
                    and isinstance(model.get("status"), dict)
                }
            case _:
                raise EngineFailed(f"Engine {self.control.name} lists its models in a form that is no router's.")

    async def load(self, model: str) -> None:
        """See `Driver`."""
        status = await self._status(model)
        if status.get("value") == "loaded":
            return
        if status.get("value") != "loading":
            await self.control.post("/models/load", {"model": model})
        for _ in range(MOVE_MS_MAX // WATCH_EVERY_MS):
            status = await self._status(model)
            if status.get("value") == "loaded":
                return
            if status.get("failed"):
                code = status.get("exit_code")
                raise EngineFailed(f"Engine {self.control.name} could not load {model}: its process ended ({code}).")
            await self._clock.sleep_ms(WATCH_EVERY_MS)
        raise EngineTimeout(f"Engine {self.control.name} did not load {model}.")

    async def unload(self, model: str) -> None:
        """See `Driver`."""
        if (await self._status(model)).get("value") == "unloaded":
            return
        await self.control.post("/models/unload", {"model": model})
        for _ in range(MOVE_MS_MAX // WATCH_EVERY_MS):
            if (await self._status(model)).get("value") == "unloaded":
                return
            await self._clock.sleep_ms(WATCH_EVERY_MS)
        raise EngineTimeout(f"Engine {self.control.name} did not unload {model}.")

    async def _status(self, model: str) -> dict[str, Any]:
        status = (await self._list()).get(model)
        if status is None:
            raise NotFound(f"Engine {self.control.name} has no model {model[:100]!r}.", code="model_not_found")
        return status

    async def close(self) -> None:
        """Let go of connections."""
        await self.control.close()


def _measured(sizer: Sizer, file: RouterFile) -> ModelMemory:
    try:
        found = sizer(
            file.path,
            context_tokens=file.context_tokens,
            slots=file.slots,
            cache_type=file.cache_type,
            on_cpu=file.on_cpu,
        )
    except (WirthforgeError, OSError) as error:
        log.warning("model file not understood", file=file.path.name, reason=type(error).__name__)
        return UNKNOWN
    return found or UNKNOWN


class VllmSleep:
    """One vLLM process with its one model, awake or asleep in main memory.

    Args:
        model: the first name under which it serves its model (`--served-model-name`).

    Attributes:
        memory_share: the part of its GPUs that it takes, weights and cache; None until it has told.
    """

    rests_in = State.HOST_RAM

    def __init__(self, base_url: str, *, name: str, model: str, clock: Clock, api_key: str = "") -> None:
        self.control = Control(base_url, name=name, api_key=api_key)
        self.model = model
        self.memory_share: float | None = None
        self._clock = clock

    async def states(self) -> dict[str, State]:
        """See `Driver`."""
        if self.memory_share is None:
            self.memory_share = read_memory_share(await self.control.page("/metrics"))
        return {self.model: State.HOST_RAM if await self._is_sleeping() else State.RESIDENT}

    async def _is_sleeping(self) -> bool:
        match await self.control.get("/is_sleeping"):
            case {"is_sleeping": bool(is_sleeping)}:
                return is_sleeping
            case _:
                raise EngineFailed(f"Engine {self.control.name} does not say whether it sleeps.")

    async def load(self, model: str) -> None:
        """Wake it; see `Driver`."""
        self._check(model)
        if await self._is_sleeping():
            await self.control.post("/wake_up", ms_max=MOVE_MS_MAX)
            await self._watch(is_sleeping=False)

    async def unload(self, model: str) -> None:
        """Put it to sleep; see `Driver`."""
        self._check(model)
        if not await self._is_sleeping():
            await self.control.post("/sleep?level=1&mode=wait", ms_max=MOVE_MS_MAX)
            await self._watch(is_sleeping=True)

    async def _watch(self, *, is_sleeping: bool) -> None:
        for _ in range(MOVE_MS_MAX // WATCH_EVERY_MS):
            if await self._is_sleeping() is is_sleeping:
                return
            await self._clock.sleep_ms(WATCH_EVERY_MS)
        raise EngineTimeout(f"Engine {self.control.name} did not {'fall asleep' if is_sleeping else 'wake up'}.")

    def _check(self, model: str) -> None:
        if model != self.model:
            raise NotFound(f"Engine {self.control.name} has no model {model[:100]!r}.", code="model_not_found")

    async def close(self) -> None:
        """Let go of connections."""
        await self.control.close()
