"""What a request costs, in millionths of the admin's currency: at the most, before it leaves, and then really.

Before: a token stands for at least one byte of the body, since what a template adds to a message is less than the JSON
around it. So the body's length, and something for what a provider writes before tools, bounds the prompt, and the
answer has a bound of its own. That is some four times what a text in English comes to; what is not spent is given back
as soon as the answer ends.

After: what the provider counted. Tokens that it read from a cache of its own, and bills at less, cost like all others
here: an admin sets one price for what is read.
"""

from collections.abc import Mapping
from typing import Any

from server.cloud.bodies import answers_of, output_tokens_of
from server.cloud.protocol import CloudModel

PER_MILLION = 1_000_000
# Anthropic writes some 500 tokens before the tools of a request (its documentation of tool use, 2026).
UNSEEN_TOKENS_MAX = 1024
# About so many bytes of a body are a token, where its provider did not say.
BYTES_PER_TOKEN = 4


def tokens_of(body_bytes: int) -> int:
    """About how many tokens a body has; its provider knows better."""
    return -(-body_bytes // BYTES_PER_TOKEN)


def reserved_micros(composed: bytes, body: Mapping[str, Any], model: CloudModel) -> int:
    """What the request costs at the most.

    Args:
        composed: the exact bytes that leave.
        body: the request of which they were made.
    """
    return cost_micros(model, len(composed) + UNSEEN_TOKENS_MAX, output_tokens_of(body, model) * answers_of(body))


def cost_micros(model: CloudModel, input_tokens: int, output_tokens: int) -> int:
    """What so many tokens cost, rounded up."""
    price = input_tokens * model.input_micros_per_million + output_tokens * model.output_micros_per_million
    return -(-price // PER_MILLION)


def cheapness(model: CloudModel) -> tuple[int, str]:
    """Sorts models by price, and by name where that is the same."""
    return model.input_micros_per_million + model.output_micros_per_million, model.name
