"""What a provider of somebody else's models must do: compose exact bytes, and send exactly those.

The two are apart because between them the bytes are examined, decided on, hashed and written into the ledger. So
`compose` opens no connection, and `send` changes nothing. A provider gets what its API knows and no more: an allow-list
of fields, no names or ids of people, no request id of ours, no header of a client.
"""

from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta, Struct

from server.engines.protocol import Reply
from server.messages import ModelRequest

Kind = Literal["openai", "anthropic"]

# A part of a path, which clients would not take out of an address, and what a header can hold.
NAME = r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z"
NAME_CHARACTERS_MAX = 100
URL_CHARACTERS_MAX = 500
MODELS_MAX = 100
PATTERNS_MAX = 100
FIELDS_MAX = 20

# A name of a model goes into headers and logs: visible ASCII.
ModelName = Annotated[str, Meta(pattern=r"\A[!-~]{1,200}\Z")]
Pattern = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f]{1,500}\Z")]
# Of a provider's API. What bounds and counts an answer, and what it is about, is never left out.
Field = Annotated[
    str, Meta(pattern=r"\A(?!(max_tokens|max_completion_tokens|messages|model|stream|system)\Z)[a-z_]{1,50}\Z")
]
# What a million tokens cost, in millionths of the admin's currency.
MicrosPerMillion = Annotated[int, Meta(ge=0, le=10**12)]
Tokens = Annotated[int, Meta(ge=1, le=1 << 30)]


class CloudModel(Struct, frozen=True, kw_only=True):
    """A model of a provider.

    Attributes:
        stands_in_for: names of models of this box, with `*` for anything; none: it is never chosen.
        input_micros_per_million, output_micros_per_million: its price.
        output_tokens_max: of one answer; what a request asks for beyond it is cut.
        context_tokens: what prompt and answer may span; None where nobody said.
        leaves_out: fields of the provider's API that this model refuses, such as `temperature`; they are not sent.
    """

    name: ModelName
    stands_in_for: Annotated[tuple[Pattern, ...], Meta(max_length=PATTERNS_MAX)] = ()
    input_micros_per_million: MicrosPerMillion
    output_micros_per_million: MicrosPerMillion
    output_tokens_max: Tokens = 4096
    context_tokens: Tokens | None = None
    leaves_out: Annotated[tuple[Field, ...], Meta(max_length=FIELDS_MAX)] = ()


class ProviderSpec(Struct, frozen=True, kw_only=True):
    """A provider as an admin describes it, without its key.

    Attributes:
        url: up to and with `/v1`.
        is_enabled: else nothing is sent there.
    """

    name: Annotated[str, Meta(pattern=NAME, max_length=NAME_CHARACTERS_MAX)]
    kind: Kind
    url: Annotated[str, Meta(max_length=URL_CHARACTERS_MAX)]
    models: Annotated[tuple[CloudModel, ...], Meta(max_length=MODELS_MAX)] = ()
    is_enabled: bool = True


class Counted(Struct, frozen=True):
    """What a provider says it counted, thoughts that it did not show included."""

    input_tokens: int
    output_tokens: int


class CloudReply(Reply, Protocol):
    """An answer under way: a stream of OpenAI's events, whatever the provider speaks.

    `close` ends it in any case and tells the breaker; `read` gives all events in one piece.
    """

    @property
    def usage(self) -> Counted | None:
        """The provider's own count, as soon as it is there: what it bills by."""
        ...

    @property
    def body_bytes(self) -> int:
        """How many bytes of the answer have come so far."""
        ...


class Provider(Protocol):
    """Somebody else's models, reached with the box's key.

    Attributes:
        name: unique on this box, shown to users, in the ledger and in usage.
        kind: which API it speaks.
    """

    @property
    def name(self) -> str:
        """See above."""
        ...

    @property
    def kind(self) -> Kind:
        """See above."""
        ...

    @property
    def lets_pass(self) -> bool:
        """Whether a request may go there now: its breaker is closed, or half-open and nobody tries."""
        ...

    def compose(self, request: ModelRequest, body: dict[str, Any], model: CloudModel) -> bytes:
        """The exact bytes of a request: always streamed, with usage, and with a bound of the answer.

        Opens no connection, reads no clock, rolls no dice: the same arguments give the same bytes.

        Args:
            request: only its `surface` and `input_tokens` are looked at.
            body: OpenAI's request object, as it is to leave (pseudonymised or whole).

        Raises:
            InvalidRequest: it holds what cannot go there: pictures and files, into which nobody looks, a field whose
                loss would change the answer, or more bytes than the provider takes. It stays local then.
        """
        ...

    async def models(self) -> tuple[str, ...]:
        """Which models it lists. Tells it nothing but the key. Raises like `send`."""
        ...

    async def send(self, body: bytes, *, request_id: str) -> CloudReply:
        """Send exactly these bytes, once; returns as soon as the provider has begun to answer with success.

        The reply is a stream of OpenAI's events, whatever the provider speaks. Whoever gets it must `close` it at last,
        which also tells the breaker. Nothing is tried again.

        Args:
            body: of `compose`.
            request_id: for our log; it does not leave.

        Raises:
            InvalidRequest: the provider refuses the request itself.
            Unavailable: it is full, has had enough of us (`retry_after_s`), or has failed too often of late.
            EngineFailed: code `provider_refused` where it does not take the key, `provider_redirects`,
                `provider_unreachable`, or `engine_failed`.
            EngineTimeout: it said nothing.
        """
        ...
