"""Every name that a span may hold.

From OpenTelemetry's semantic conventions, v1.41.1: the last release that has the conventions of HTTP (stable) and of
generative AI (in development) in one schema. Those of generative AI have since moved to a repository of their own,
semantic-conventions-genai, which had no release as of 2026-11-24; the names below are the same there.

Left out although the conventions ask for it, since callers write it: `url.path`, `url.query`, `user_agent.original`,
`client.address`, a `server.address` from the Host header, messages, tools, and all sampling parameters.
"""

import re
from typing import Final

from server.messages import Surface

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.1"

ERROR_TYPE: Final = "error.type"
METHOD: Final = "http.request.method"
ROUTE: Final = "http.route"
STATUS: Final = "http.response.status_code"
SCHEME: Final = "url.scheme"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_TOKENS_MAX: Final = "gen_ai.request.max_tokens"
REQUEST_CHOICES: Final = "gen_ai.request.choice.count"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
# Seconds, from when the request was sent.
FIRST_CHUNK_S: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
WORKFLOW: Final = "gen_ai.workflow.name"
AGENT: Final = "gen_ai.agent.name"

# Ours.
REQUEST_ID: Final = "wirthforge.request.id"
ENGINE: Final = "wirthforge.engine"
CLOUD: Final = "wirthforge.cloud"
OUTCOME: Final = "wirthforge.outcome"
CLIENT_LEFT: Final = "wirthforge.client_left"
PAUSES: Final = "wirthforge.pauses"
STRATEGY: Final = "wirthforge.council.strategy"
SIZE: Final = "wirthforge.council.size"
WANTED: Final = "wirthforge.council.wanted"
SEAT: Final = "wirthforge.council.seat"
ROLE: Final = "wirthforge.council.role"
# An event.
FIRST_TOKEN: Final = "wirthforge.first_token"  # noqa: S105 (of another kind)

OPERATIONS: Final[dict[Surface, str]] = {
    "chat.completions": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
# RFC 9110 and PATCH; all others are one.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
OTHER: Final = "_OTHER"
# Why an answer ended, in OpenAI's words; what an engine says beyond them is `other`.
REASONS: Final = frozenset({"stop", "length", "tool_calls", "function_call", "content_filter"})
CODE: Final = re.compile(r"[a-z0-9][a-z0-9_]{0,59}")


def error_type(code: str) -> str:
    """A code of ours as `error.type`; what is none becomes the conventions' word for it."""
    return code if CODE.fullmatch(code) else OTHER


def finish_reason(said: str) -> str:
    """The reason that an engine gave, if it is one of OpenAI's."""
    return said if said in REASONS else "other"
