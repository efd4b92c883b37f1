"""Policies and wishes for Hypothesis, and what "stricter" means for each."""

from hypothesis import strategies as st
from msgspec import UNSET

from server.privacy.modes import MODES, ON_PERSONAL_DATA, WISHES
from server.privacy.policy import For, Policy, Scopes, Wishes

# Few names, so that patterns and names meet often.
PROVIDERS = ("openai", "anthropic")
MODELS = ("gpt-5", "gpt-5-mini", "claude-4")
PATTERNS = ("*", "gpt-*", "gpt-5", "*-mini", "claude-4")


def silent_or(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """A field that may say nothing."""
    return st.one_of(st.just(UNSET), values)


exceptions = st.builds(
    For,
    provider=st.sampled_from((*PROVIDERS, "*", "open*")),
    model=st.sampled_from(PATTERNS),
    mode=st.sampled_from(MODES),
)
policies = st.builds(
    Policy,
    mode=silent_or(st.sampled_from(MODES)),
    on_personal_data=silent_or(st.sampled_from(ON_PERSONAL_DATA)),
    allows_code=silent_or(st.booleans()),
    patience_ms=silent_or(st.integers(0, 100_000)),
    for_=silent_or(st.lists(exceptions, max_size=3).map(tuple)),
    is_on=silent_or(st.booleans()),
    council_members=silent_or(st.booleans()),
    detection_model=silent_or(st.sampled_from(("", "tiny"))),
)
scopes = st.builds(Scopes, box=policies, cap=policies, own=policies)
wishes = st.builds(
    Wishes,
    conversation=st.one_of(st.none(), st.sampled_from(WISHES)),
    request=st.one_of(st.none(), st.sampled_from(WISHES)),
    patience_ms=st.one_of(st.none(), st.integers(0, 100_000)),
)
providers = st.sampled_from(("", *PROVIDERS))
models = st.sampled_from(("", *MODELS))
