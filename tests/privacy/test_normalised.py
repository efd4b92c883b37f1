"""Views in which hidden things show."""

import base64
import urllib.parse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.privacy.normalised import LAYERS_MAX, TooWrapped, views

ADDRESS = "petra@example.org"
KEY = "AKIA" + "QWERTZUIOPASDFGH"


def _readings(text: str) -> list[str]:
    return [view.text for view in views(text)]


@pytest.mark.parametrize(
    "hidden",
    [
        "pe\u200btra@exam\u00adple.org",
        "petra\uff20example.org",
        "p\u0435tra@\u0435x\u0430mple.org",
        "petra%40example.org",
        "petra%2540example.org",
        r"petra\u0040example.org",
        "petra&#64;example.org",
        "petra&commat;example.org",
        "petra (at) example [dot] org",
        "\U000e0070\U000e0065\U000e0074\U000e0072\U000e0061@example.org",
        "pe\ufe0ftra@example.org",
        "\U0001d429\U0001d41e\U0001d42d\U0001d42b\U0001d41a@example.org",
    ],
)
def test_a_hidden_address_shows(hidden: str) -> None:
    """Invisible characters, compatibility forms, lookalikes, escapes and spoken signs are read."""
    assert any(ADDRESS in reading for reading in _readings(f"write to {hidden} today"))


@pytest.mark.parametrize("layers", [1, 2, LAYERS_MAX])
def test_what_is_wrapped_in_base64_shows(layers: int) -> None:
    """Also within base64 again, behind a path, without padding, in the alphabet for URLs, and URL-encoded."""
    wrapped = f"the key is {KEY}"
    for _ in range(layers):
        wrapped = base64.b64encode(wrapped.encode()).decode()
    for text in (wrapped, "/a/path/" + wrapped, wrapped.rstrip("="), urllib.parse.quote(wrapped)):
        assert any(KEY in reading for reading in _readings(f"x {text} y")), text
    wide = base64.urlsafe_b64encode(f"the key is {KEY}".encode("utf-16-le")).decode()
    assert any(KEY in reading for reading in _readings(wide))


def test_hexadecimal_text_shows() -> None:
    """Text in hexadecimal is read; a checksum says nothing."""
    assert any(KEY in reading for reading in _readings(f"see {KEY.encode().hex()}"))
    assert len(views("9fceb02d0ae598e95dc970b74767f19372d61af8")) == 1


def test_too_many_layers_are_not_passed_over() -> None:
    """What is wrapped deeper than anybody looks raises, so that nobody takes it for looked at."""
    wrapped = f"the key is {KEY}"
    for _ in range(LAYERS_MAX + 2):
        wrapped = base64.b64encode(wrapped.encode()).decode()
    with pytest.raises(TooWrapped):
        views(wrapped)
    escaped = "petra@example.org"
    for _ in range(12):
        escaped = urllib.parse.quote(escaped.replace("@", "%40"), safe="")
    with pytest.raises(TooWrapped):
        views(escaped)


def test_plain_text_has_one_view() -> None:
    """Nothing is looked at twice without a reason."""
    assert [view.name for view in views("Hello, how are you? 100 % of it.")] == ["plain"]


_PIECES = st.lists(
    st.text(max_size=8)
    | st.sampled_from(["%40", "%C3%A4", r"\u0040", r"\ud83d\ude00", "&amp;#64;", "\u200b", "\ufb01", "e\u0301"])
    | st.sampled_from([" (at) ", "\u0430", "\\\\", "%"])
    | st.text(max_size=30).map(lambda text: base64.b64encode(text.encode(errors="replace")).decode()),
    max_size=12,
).map("".join)


@given(text=_PIECES)
@example(text="\ud800\udfff\\ud800")
@example(text="\u0301" * 20)
def test_every_position_of_a_view_maps_into_the_original(text: str) -> None:
    """Spans are within the text, never empty, in order; and plain characters map to themselves."""
    try:
        readings = views(text)
    except TooWrapped:
        return
    assert readings[0].text == text
    for view in readings:
        before = 0
        for at, char in enumerate(view.text):
            start, end = view.span(at, at + 1)
            assert 0 <= start < end <= len(text)
            assert start >= before
            before = start
            if view.name == "open" and char.isascii() and end - start == 1 and text[start].isascii():
                assert text[start] == char


@given(before=st.text(max_size=20), after=st.text(max_size=20), hide=st.sampled_from(["\u200b", "\u00ad", "\u2060"]))
def test_a_finding_maps_to_a_span_that_contains_it(before: str, after: str, hide: str) -> None:
    """Whatever stands around it, the span of the hidden word reads as the word."""
    word = hide.join("petra@example.org")
    text = f"{before} {word} {after}"
    try:
        view = next(one for one in views(text) if ADDRESS in one.text)
    except TooWrapped:
        return
    start, end = view.span(view.text.index(ADDRESS), view.text.index(ADDRESS) + len(ADDRESS))
    assert ADDRESS in text[start:end].replace(hide, "")


@given(junk=st.binary(max_size=400))
def test_random_bytes_are_no_fault(junk: bytes) -> None:
    """Any text has views, or is said to be wrapped too deeply."""
    for text in (junk.decode("latin-1"), junk.decode(errors="replace"), junk.decode(errors="surrogateescape")):
        try:
            assert views(text)[0].text == text
        except TooWrapped:
            continue


@pytest.mark.parametrize("text", ["a" * 1_000_000, "%41" * 20_000, "\\" * 20_000, "\u0301" * 20_000, "A=" * 20_000])
def test_the_work_is_bounded(text: str) -> None:
    """All views together are at most a small multiple of the text, so that the time is as well."""
    readings = _readings(text)
    assert sum(map(len, readings)) <= 8 * len(text) + 65_536
    assert len(readings) < 10
