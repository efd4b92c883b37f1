"""What rooms hand to each other: small frozen structs without behaviour of their own."""

from typing import Any, Literal
from uuid import UUID

from msgspec import Struct

Role = Literal["admin", "member"]
Surface = Literal["chat.completions", "completions", "embeddings"]


class Principal(Struct, frozen=True, kw_only=True):
    """The authenticated caller.

    Attributes:
        key_id: the API key that was shown, or None for a login session.
    """

    id: UUID
    name: str
    role: Role
    key_id: UUID | None = None


class CloudWish(Struct, frozen=True, kw_only=True):
    """What a request itself says about leaving this box; it can make things stricter, never looser.

    Attributes:
        mode: one of server/privacy/modes.py, or `private`; None: nothing is said.
        conversation_id: the stored conversation that it belongs to.
        consent: the token of a consent that its person has given to this very body.
        takes_events: whether its client understands an event that asks for consent.
    """

    mode: str | None = None
    conversation_id: UUID | None = None
    consent: str = ""
    takes_events: bool = False


class ModelRequest(Struct, frozen=True, kw_only=True):
    """One request to one model, in OpenAI's wire format, checked as far as the server needs it.

    Attributes:
        body: what the engine gets, but for what adapters must add.
        wants_usage: whether the client asked for the usage chunk of a stream.
        input_tokens: an estimate; the engine's count replaces it.
        longest_input_tokens: of the longest single prompt, where there are several.
        output_tokens_max: of each answer, where the client says so.
        answers: how many it asks for.
        is_revocable: whether it may be stopped for somebody who waits (`service_tier: "flex"`).
        council_id: the council's request that it is a part of, if it is; `role` is what it does there.
        cloud: what it says about leaving this box.
    """

    id: UUID
    surface: Surface
    model: str
    body: dict[str, Any]
    is_stream: bool
    wants_usage: bool
    input_tokens: int
    longest_input_tokens: int
    output_tokens_max: int | None = None
    answers: int = 1
    is_revocable: bool = False
    council_id: UUID | None = None
    role: str = ""
    cloud: CloudWish = CloudWish()


class Piece(Struct, frozen=True):
    """What one event of a stream said: its text, and the ids of its tokens where the engine told them."""

    text: str
    ids: tuple[int, ...] = ()


class Written(Struct, frozen=True):
    """An answer so far, for an engine that is to go on with it.

    Attributes:
        tokens: how many there are, by the engine's events.
    """

    pieces: tuple[Piece, ...]
    tokens: int

    @property
    def text(self) -> str:
        """As the client has it."""
        return "".join(piece.text for piece in self.pieces)

    def without_ids(self) -> "Written":
        """For an engine that may cut text into other tokens."""
        return Written(tuple(Piece(piece.text) for piece in self.pieces), self.tokens)


class ServedModel(Struct, frozen=True, kw_only=True):
    """A model as its engine lists it; `context_tokens` is None where the engine does not say."""

    id: str
    context_tokens: int | None = None
    is_demonstration: bool = False


class Pressure(Struct, frozen=True, kw_only=True):
    """What an engine tells of itself.

    Attributes:
        waiting: requests that wait inside of it.
        preempted: how many it has pre-empted since it began.
        kv_tokens: its pool; 0 if unknown.
    """

    waiting: int
    preempted: int = 0
    kv_tokens: int = 0


class ModelMemory(Struct, frozen=True):
    """What a model is said to take: the value, and the upper end of its band, by which it is admitted."""

    expected_bytes: int
    high_bytes: int


class DeviceMemory(Struct, frozen=True, kw_only=True):
    """The memory of one device, as it was last read.

    Attributes:
        total_bytes: all of it; None where nobody knows.
        usable_bytes: the same, less the headroom.
        free_bytes: what could be given to a model now; None where nobody knows, or where it says nothing (main memory,
            from which mapped files can be dropped).
        used_bytes: by everybody.
        processes: bytes by pid; None where the driver does not tell all of them.
    """

    uuid: str
    total_bytes: int | None = None
    usable_bytes: int | None = None
    free_bytes: int | None = None
    used_bytes: int | None = None
    processes: dict[int, int] | None = None
