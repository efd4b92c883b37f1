"""Texts that Postgres can hold: it takes any character but NUL, and no half of a surrogate pair."""

from server.errors import InvalidRequest

NUL, REPLACEMENT = "\0", "\ufffd"
TITLE_CHARS_MAX = 80
# What a person may write as a title, or as the name of a model.
NAME_CHARS_MAX = 200


def storable(text: str, param: str) -> str:
    """A person's text, as it came.

    Raises:
        InvalidRequest: it holds what cannot be stored.
    """
    if NUL in text:
        raise InvalidRequest(f"{param}: a NUL character cannot be stored. Remove it.", code="nul", param=param)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{param}: it holds half of a surrogate pair.", code="surrogate", param=param) from None
    return text


def name(text: str, param: str) -> str:
    """The same for a title or the name of a model, which are short."""
    text = " ".join(storable(text, param).split())
    if len(text) > NAME_CHARS_MAX:
        raise InvalidRequest(f"{param}: it may have {NAME_CHARS_MAX} characters.", param=param)
    return text


def mended(text: str) -> str:
    """A machine's text: what cannot be stored is replaced by U+FFFD."""
    return text.replace(NUL, REPLACEMENT).encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def title_of(question: str) -> str:
    """The first line that says something, shortened."""
    line = next((line for line in question.splitlines() if line.strip()), "")
    line = " ".join(line.split())
    return line if len(line) <= TITLE_CHARS_MAX else line[: TITLE_CHARS_MAX - 1].rstrip() + "…"
