"""huggingface_hub's client on our own connection, and what it gives as OpenAI's events."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import httpx2
import msgspec
from huggingface_hub import AsyncInferenceClient, TextGenerationStreamOutput
from huggingface_hub.errors import TextGenerationError

from server.engines.openai_compatible import ANSWER_BYTES_MAX
from server.engines.tgi_answers import DONE, EVENT_END, Events, Faults
from server.errors import EngineFailed

FINISH = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}
# The client looks for a Hub token on this machine if it has none; the transport sends neither.
NO_TOKEN = "none"  # noqa: S105 (the opposite of one)
# Characters that the client's line reader takes for the end of a line, and how JSON may write them as well.
LINE_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))

Post = Callable[[str, bytes], Awaitable[aiohttp.ClientResponse]]
Get = Callable[[str], Awaitable[bytes]]
Listen = Callable[[aiohttp.ClientResponse], Events]


class Transport(httpx2.AsyncBaseTransport):
    """Carries one request of the client over the adapter's connection, with its bounds and its errors.

    Args:
        post: gives a good answer, begun, or raises an error of ours.
        get: gives a page, or raises an error of ours.
        listen: reads a good answer.
    """

    def __init__(self, post: Post, get: Get, listen: Listen) -> None:
        self._post = post
        self._get = get
        self._listen = listen
        self._events: Events | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send what the client wrote, and nothing of its headers."""
        if request.method == "GET":
            return httpx2.Response(200, content=await self._get(str(request.url)))
        self._events = self._listen(await self._post(str(request.url), await request.aread()))
        return httpx2.Response(200, stream=_Lines(self._events))

    def expect_tokens(self) -> None:
        """See `Reply.expect_tokens`."""
        if self._events is not None:
            self._events.expect_tokens()

    def close(self) -> None:
        """Hang up."""
        if self._events is not None:
            self._events.response.close()


class _Lines(httpx2.AsyncByteStream):
    """An event stream whose lines the client does not misread."""

    def __init__(self, events: Events) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while events := await self._events.next():
            for raw, escaped in LINE_ENDS:
                events = events.replace(raw, escaped)
            yield events


class Client(AsyncInferenceClient):
    """The client for one address, on a transport of ours."""

    def __init__(self, url: str, transport: Transport) -> None:
        super().__init__(url, provider="hf-inference", token=NO_TOKEN)
        self.transport = transport
        self._http = httpx2.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)

    async def _get_async_client(self) -> httpx2.AsyncClient:
        """The client's own would be made by a factory that all of the process share."""
        return self._http


class Completion:
    """A completion under way: TGI's tokens as OpenAI's events."""

    def __init__(
        self,
        faults: Faults,
        client: Client,
        tokens: AsyncIterable[TextGenerationStreamOutput],
        first: TextGenerationStreamOutput,
        *,
        request_id: str,
        body: dict[str, Any],
    ) -> None:
        self._faults = faults
        # Kept as long as the answer: it owns the stream, and ends it when it is collected.
        self._client = client
        self._tokens = tokens
        self._first = first
        self._wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._wants_logprobs = body.get("logprobs") is not None
        # `created`: TGI does not tell when.
        self._frame = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": 0,
            "model": body.get("model"),
        }
        self._offset = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """See `Reply.chunks`."""
        usage: dict[str, int] | None = None
        async for token in self._told():
            choice, usage = self._choice(token)
            yield self._event({"choices": [choice]})
            if usage is not None:
                break
        if usage is None:
            raise self._faults.stopped()
        if self._wants_usage:
            yield self._event({"choices": [], "usage": usage})
        yield DONE

    async def _told(self) -> AsyncIterator[TextGenerationStreamOutput]:
        yield self._first
        try:
            with self._faults.of_rubbish():
                async for token in self._tokens:
                    yield token
        except TextGenerationError as error:
            raise self._faults.failed() from error

    def _choice(self, told: TextGenerationStreamOutput) -> tuple[dict[str, Any], dict[str, int] | None]:
        """The token as OpenAI's choice; with the last one its usage."""
        with self._faults.of_rubbish():
            # Special tokens are no part of the text.
            text = "" if told.token.special else told.token.text
            choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": None, "finish_reason": None}
            if self._wants_logprobs:
                choice["logprobs"] = self._logprobs(told)
                choice["token_ids"] = [told.token.id]  # as vLLM names them
            self._offset += len(text)
            if (details := told.details) is None:
                return choice, None
            choice["finish_reason"] = FINISH.get(details.finish_reason, "stop")
            counts = (details.input_length or 0, details.generated_tokens)
            return choice, dict(
                zip(("prompt_tokens", "completion_tokens", "total_tokens"), (*counts, sum(counts)), strict=True)
            )

    def _logprobs(self, told: TextGenerationStreamOutput) -> dict[str, Any]:
        return {
            "tokens": [told.token.text],
            "token_logprobs": [told.token.logprob],
            "top_logprobs": [{token.text: token.logprob for token in told.top_tokens or ()}],
            "text_offset": [self._offset],
        }

    def _event(self, parts: dict[str, Any]) -> bytes:
        return b"data: " + msgspec.json.encode(self._frame | parts) + EVENT_END

    async def read(self) -> bytes:
        """The whole answer, at most ANSWER_BYTES_MAX."""
        texts: list[str] = []
        size = 0
        async for token in self._told():
            choice, usage = self._choice(token)
            texts.append(choice["text"])
            size += len(choice["text"])
            if size > ANSWER_BYTES_MAX:
                raise EngineFailed(f"Engine {self._faults.name} answered with more than {ANSWER_BYTES_MAX} bytes.")
            if usage is not None:
                whole = choice | {"text": "".join(texts), "logprobs": None}
                return msgspec.json.encode(self._frame | {"choices": [whole], "usage": usage})
        raise self._faults.stopped()

    def expect_tokens(self) -> None:
        """See `Reply.expect_tokens`."""
        self._client.transport.expect_tokens()

    def close(self) -> None:
        """Hang up."""
        self._client.transport.close()
