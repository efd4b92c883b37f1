"""Who is asked: each model alone, samples of the leader, and several models, by the strategies that were named."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from server.council.names import PREFIX, SELF

# The server chooses by size and kind of question.
OWN_CHOICE = "auto"
# Strategies that make no sense with samples of one model, and one that makes sense with nothing else.
MIXED_ONLY = frozenset({"duo", "council-k", "debate", "race"})
SAMPLES_ONLY = frozenset({"self-k"})


class Way(Struct, frozen=True):
    """One way of asking.

    Attributes:
        name: in tables.
        model: the request's `model`.
        members: the models that may answer, the leader first.
        size: members wanted; 1 is a model alone, without a council.
        strategy: None is the server's choice.
    """

    name: str
    model: str
    members: tuple[str, ...]
    size: int = 1
    strategy: str | None = None

    def body(self) -> dict[str, Any]:
        """What of the request's body makes it this way."""
        if self.size == 1:
            return {"model": self.model}
        options: dict[str, Any] = {"members": self.members}
        if self.strategy is not None:
            options["strategy"] = self.strategy
        return {"model": self.model, "wirthforge": {"council": options}}


def ways(models: Sequence[str], sizes: Sequence[int], strategies: Sequence[str]) -> tuple[list[Way], list[str]]:
    """All ways, the leader alone first, and sentences about what was left out.

    Args:
        models: the first leads.
        sizes: of councils; 1 is among them whether it is named or not, since all others are compared with it.
    """
    leader, left_out = models[0], []
    found = []
    for size in sorted(set(sizes) - {1}):
        for strategy in strategies:
            about = "" if strategy == OWN_CHOICE else f" {strategy}"
            chosen = None if strategy == OWN_CHOICE else strategy
            if strategy not in MIXED_ONLY:
                name = f"{PREFIX}:{SELF}:{size}"
                found.append(Way(name + about, name, (leader,), size, chosen))
            if strategy in SAMPLES_ONLY:
                continue
            if size > len(models):
                left_out.append(f"council:{size}{about} was left out: there are {len(models)} models.")
                continue
            found.append(Way(f"{PREFIX}:{size}{about}", f"{PREFIX}:{size}", tuple(models[:size]), size, chosen))
    seated = {model for way in found for model in way.members} | {leader}
    if idle := [model for model in models if model not in seated]:
        left_out.append(f"No council is large enough for {', '.join(idle)}; they were asked alone only.")
    return [Way(f"{model} alone", model, (model,)) for model in models] + found, left_out
