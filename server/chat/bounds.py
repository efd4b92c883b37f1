"""How long an answer may be: by the model's context, by the person's limits, and by what the client asked for."""

from dataclasses import dataclass

from quotas.policy import Limits
from server.errors import InvalidRequest
from server.messages import ModelRequest, ServedModel

# The estimate takes four characters for a token, and no tokenizer packs more than twelve on average: beyond this
# ratio a prompt cannot fit, and engines take long to find that out.
ESTIMATE_TO_CONTEXT_MAX = 3
# What an answer is taken to need at the most, where neither client nor engine says anything.
ANSWER_TOKENS_ASSUMED = 4096
# A client that names no length is content with this much, should its budget not afford more.
ANSWER_TOKENS_LEAST = 256


@dataclass(frozen=True, slots=True)
class Bounds:
    """Output tokens that all answers of the request may have together, and the least that makes sense."""

    most: int
    least: int


def bounds_of(request: ModelRequest, model: ServedModel, limits: Limits) -> Bounds:
    """What to reserve for a request.

    Raises:
        InvalidRequest: the prompt or the wished length cannot fit.
    """
    context, wished = model.context_tokens, request.output_tokens_max
    if context is not None and request.longest_input_tokens > context * ESTIMATE_TO_CONTEXT_MAX:
        raise InvalidRequest(
            f"The prompt has about {request.longest_input_tokens} tokens; {request.model} takes {context}.",
            code="context_length_exceeded",
        )
    if context is not None and wished is not None and wished > context:
        raise InvalidRequest(
            f"max_tokens is {wished}, but the whole context of {request.model} has {context} tokens.",
            code="context_length_exceeded",
            param="max_tokens",
        )
    most = ANSWER_TOKENS_ASSUMED if wished is None else wished
    if wished is None and context is not None:
        most = max(context - request.longest_input_tokens, 1)
    if limits.context_tokens_max is not None:
        left = limits.context_tokens_max - request.longest_input_tokens
        if left < 1:
            raise InvalidRequest(
                f"The prompt has about {request.longest_input_tokens} tokens; "
                f"your requests may have {limits.context_tokens_max}, with the answer.",
                code="context_limit_exceeded",
            )
        most = min(most, left)
    least = most if wished is not None else min(most, ANSWER_TOKENS_LEAST)
    return Bounds(most * request.answers, least * request.answers)


def is_bound(limits: Limits) -> bool:
    """Whether a limit of this person may make an answer shorter than the model would."""
    budgets = (limits.tokens_per_minute, limits.tokens_per_day, limits.tokens_per_month, limits.context_tokens_max)
    return any(budget is not None for budget in budgets)
