"""Pseudonyms: of the right type, nobody's, the same within a conversation, and no value is left in the bytes."""

import base64
import ipaddress
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.privacy.findings import Finding
from server.privacy.json_pieces import pieces_of
from server.privacy.normalised import TooWrapped
from server.privacy.payload import parts_of, with_texts
from server.privacy.pseudonyms import Map, Pair, Pseudonyms, leaks
from server.privacy.restoring import restored
from server.privacy.surrogates import name_words
from tests.privacy.spoken import KEY, VALUES, body_of, found, hidden, pseudonymised, wire

TEXT = ("messages", 0, "content")


def content(body: dict[str, Any], number: int = 0) -> str:
    """What a message says."""
    text = body["messages"][number]["content"]
    assert isinstance(text, str)
    return text


def one(type_: str, value: str, **options: Any) -> Pair:
    """The pair of a value that is alone in a body."""
    _, map_ = pseudonymised(body_of(f"It is {value} indeed."), (type_, value), **options)
    return next(pair for pair in map_.pairs if pair.original == value)


LOOKS = {
    "PERSON": r"[A-Z][a-z]{7}( [A-Z][a-z]{7})*",
    "EMAIL": r"[a-z]{8}\d{3}@example\.invalid",
    "PHONE": r"\+999 \d\d \d{4} \d{4}",
    "IBAN": r"ZZ00( \d{4}){4}",
    "CREDIT_CARD": r"0000( \d{4}){3}",
    "SOCIAL_SECURITY": r"000-\d\d-\d{4}",
    "ADDRESS": r"\d{4} [A-Z][a-z]{7} Street",
    "ORGANISATION": r"[A-Z][a-z]{7} Ltd",
    "PLACE": r"[A-Z][a-z]{6}burg",
    "BIRTH_DATE": r"18\d\d-\d\d-\d\d",
    "IP_ADDRESS": r"198\.1[89]\.\d+\.\d+|2001:db8(:[0-9a-f]{4}){3}::1",
    "URL": r"https://[a-z]{8}\d{3}\.example",
    "AGE": r"AGE-[A-Z2-9]{6}",
    "HEALTH": r"HEALTH-[A-Z2-9]{6}",
}


def test_each_type_looks_like_itself_and_is_nobodys() -> None:
    """A name is a name, a number has the form of one that cannot exist."""
    for type_, value in VALUES:
        pseudonym = one(type_, value).pseudonym
        assert re.fullmatch(LOOKS[type_], pseudonym), (type_, pseudonym)
        if type_ == "IP_ADDRESS":
            assert not ipaddress.ip_address(pseudonym).is_global
        if type_ == "CREDIT_CARD":
            digits = [int(digit) for digit in pseudonym if digit.isdigit()]
            doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
            assert (sum(digits[::-2]) + sum(doubled)) % 10
    assert re.fullmatch(r"BADGE-[A-Z2-9]{6}", one("BADGE", "X1-77").pseudonym)
    assert re.fullmatch(r"PERSONAL-[A-Z2-9]{6}", one("1:\n<", "X1-77").pseudonym)
    assert re.fullmatch(r"BIRTHDATE-[A-Z2-9]{6}", one("BIRTH_DATE", "1990").pseudonym)


def test_the_same_in_a_conversation_and_another_in_the_next() -> None:
    """It hangs on key, conversation and value; not on how the value is written, nor on what else is said."""
    for type_, value in VALUES:
        alone = one(type_, value)
        beside = pseudonymised(body_of(f"No. {value}!", "Ruth Ost"), (type_, value), ("PERSON", "Ruth Ost"))[1]
        assert alone in beside.pairs
        others = [one(type_, value, conversation="d"), one(type_, value, key=b"\1" * 32), one(type_, value + "7x")]
        assert alone.pseudonym not in {other.pseudonym for other in others}
    assert one("PERSON", "JANE DOE").pseudonym == one("PERSON", "Jane  Doe").pseudonym
    for first in ("JaneDoe", "jane_doe", "JANE DOE"):
        body = body_of(f"{first} is Jane Doe.")
        assert one("PERSON", "Jane Doe").pseudonym in content(pseudonymised(body, ("PERSON", "Jane Doe"))[0])


def test_nothing_of_the_value_shows() -> None:
    """Neither its letters nor its length; of a name the number of words."""
    pseudonyms = [one("PERSON", name).pseudonym for name in ("Bo", "Maximiliane", "Li")]
    assert len({len(each) for each in pseudonyms}) == 1
    assert len({len(one("EMAIL", f"{'x' * count}@a.com").pseudonym) for count in (1, 9, 40)}) == 1


def test_words_of_a_name_keep_together() -> None:
    """Family members share a name, a first name alone is hers; initials and titles do not make one person two."""
    body = body_of("Dr. Jane Doe and John Doe. Jane is Ms Doe. JANE! What a will.", "Jane A. Doe")
    done, map_ = pseudonymised(body, ("PERSON", "Dr. Jane Doe"), ("PERSON", "John Doe"), ("PERSON", "Jane A. Doe"))
    said = {pair.original: pair.pseudonym for pair in map_.pairs}
    jane, doe = said["Jane"], said["Doe"]
    assert content(done) == f"Dr. {jane} {doe} and {said['John']} {doe}. {jane} is Ms {doe}. {jane}! What a will."
    middle = said["Jane A. Doe"].split()
    assert (middle[0], middle[2], len(middle)) == (jane, doe, 3)
    assert name_words("Dr. Ludwig van Beethoven") == ["Ludwig", "Beethoven"]
    assert name_words("jane o'neill") == ["jane", "o'neill"]
    assert (name_words("Li"), name_words("x" * 81)) == ([], [])


def test_everywhere_and_in_every_reading() -> None:
    """Seen once, replaced wherever it occurs: other case, invisible characters, escapes, base64."""
    for type_, value in VALUES:
        if len(value) < 3:
            continue
        done, map_ = pseudonymised(body_of(f"It is {value}.", *hidden(value)), (type_, value))
        assert leaks(map_, wire(done)) == [], (type_, value, done)
        assert leaks(map_, wire(body_of(f"It is {value}."))) == [type_]
        for text in hidden(value):
            # Arguments of a tool are JSON in JSON.
            for body in (body_of(text), body_of("", "", text)):
                assert leaks(map_, wire(body)), (value, text)


def test_a_longer_word_is_another_word() -> None:
    """A value is no part of one; short ones are compared with their case."""
    body = body_of("Ann lives in IN. Annual plans, in Anning. Ann's, Anns.")
    done, map_ = pseudonymised(body, ("PERSON", "Ann"), ("PLACE", "IN"))
    ann, indiana = (next(pair.pseudonym for pair in map_.pairs if pair.original == text) for text in ("Ann", "IN"))
    assert content(done) == f"{ann} lives in {indiana}. Annual plans, in Anning. {ann}'s, {ann}s."
    assert leaks(map_, wire(done)) == []


def test_a_find_that_cuts_a_word_is_the_word() -> None:
    """What a detector leaves of a word is no word; and the piece it named is replaced where it stands alone."""
    body = body_of("Call Janex2 and Janes, 4x0.", "Jane and x")
    parts = parts_of(body)
    findings = [Finding("personal", "PERSON", 1, at, at + 4, "test") for at in (5, 16)]
    new, map_ = Pseudonyms(KEY, "c").replaced(parts, [*findings, Finding("personal", "AGE", 1, 25, 26, "test")])
    said = {pair.original: pair.pseudonym for pair in map_.pairs}
    assert new[1].text == f"Call {said['Janex2']} and {said['Jane']}s, {said['4x0']}."
    assert new[2].text == f"{said['Jane']} and x"


def test_a_pseudonym_holds_no_value() -> None:
    """Not by chance, and not by its form: where somebody is called Street, addresses are tokens."""
    numbers = [("AGE", str(number)) for number in range(10, 60)]
    streets = [("PERSON", "Street"), ("ADDRESS", "5 Elm Rd"), ("PHONE", "030 123 123 1")]
    body = body_of("5 Elm Rd, Street, 030 123 123 1: " + ", ".join(number for _, number in numbers))
    done, map_ = pseudonymised(body, *streets, *numbers)
    assert leaks(map_, wire(done)) == []
    address = next(pair.pseudonym for pair in map_.pairs if pair.original == "5 Elm Rd")
    assert re.fullmatch(r"[A-Z2-9]{6}", address)


def test_scripts_without_spaces() -> None:
    """There is no word to be a part of."""
    done, map_ = pseudonymised(body_of("张伟是我的朋友,我叫张伟。", "张伟"), ("PERSON", "张伟"))
    assert "张伟" not in json.dumps(done, ensure_ascii=False)
    assert restored(map_, content(done))[0] == "张伟是我的朋友,我叫张伟。"


def test_overlapping_spans_become_one() -> None:
    """The longest wins; what overlaps is one value, found again elsewhere; and what was inside it alone elsewhere."""
    text = "Write to Anna Maria Lopez Garcia, 12 Elm Road, Springfield."
    parts = parts_of(body_of(text, "Anna Maria Lopez Garcia of Springfield"))

    def finding(type_: str, piece: str) -> Finding:
        start = text.find(piece)
        return Finding("personal", type_, 1, start, start + len(piece), "test")

    findings = [
        finding("PERSON", "Anna Maria Lopez"),
        finding("PERSON", "Maria Lopez Garcia"),
        finding("ADDRESS", "12 Elm Road, Springfield"),
        finding("PLACE", "Springfield"),
    ]
    assert parts[1].text == text
    new, map_ = Pseudonyms(KEY, "c").replaced(parts, findings)
    said = {pair.original: pair.pseudonym for pair in reversed(map_.pairs)}
    name, address = said["Anna Maria Lopez Garcia"], said["12 Elm Road, Springfield"]
    assert new[1].text == f"Write to {name}, {address}."
    assert new[2].text == f"{name} of {said['Springfield']}"


def test_text_that_looks_like_a_pseudonym_is_left_alone() -> None:
    """A pseudonym that occurs in the body already, however written, is not used; placeholders of the user stay."""
    first = one("PERSON", "Jane").pseudonym
    for typed in (
        first,
        first.upper(),
        f"{first[:3]}\u200b{first[3:]}",
        base64.b64encode(f"{first} it is".encode()).decode(),
    ):
        said = f"<PERSON_1> and [NAME] know {typed}; it is Jane."
        done, map_ = pseudonymised(body_of(said), ("PERSON", "Jane"))
        assert first not in {pair.pseudonym for pair in map_.pairs}
        assert content(done).startswith(f"<PERSON_1> and [NAME] know {typed}; it is ")
        answer, unrestored = restored(map_, content(done))
        assert (answer, unrestored) == (said, [])


def test_json_stays_json() -> None:
    """Arguments of a tool: escapes are not cut, structure is never replaced, a number becomes a string."""
    arguments = '{"to": "Zo\\u00eb \\"Z\\" Ost", "tel": 12127304410, "list": ["Zo\\u00eb \\"Z\\" Ost"], "n": 3}'
    body = body_of("", "", "")
    body["messages"][2]["tool_calls"][0]["function"]["arguments"] = arguments
    parts = parts_of(body)
    (index,) = (index for index, part in enumerate(parts) if part.text == arguments)
    for start in range(len(arguments)):
        for end in range(start + 1, len(arguments) + 1, 3):
            new, map_ = Pseudonyms(KEY, "c").replaced(parts, [Finding("personal", "PERSON", index, start, end, "test")])
            read = json.loads(new[index].text)
            assert len(read) == 4
            assert [type(each) for each in read.values()][0::2] == [str, list]
    whole = arguments.index("Zo"), arguments.index('Ost"') + 3
    number = arguments.index("1212"), arguments.index("1212") + 11
    new, map_ = Pseudonyms(KEY, "c").replaced(
        parts,
        [Finding("personal", "PERSON", index, *whole, "test"), Finding("personal", "PHONE", index, *number, "test")],
    )
    read = json.loads(new[index].text)
    assert read["to"] == read["list"][0]
    assert isinstance(read["tel"], str)
    back, unrestored = restored(map_, new[index].text, in_json=True)
    assert json.loads(back) == json.loads(arguments) | {"tel": "12127304410"}
    assert unrestored == []


def test_names_of_tools_and_fields_stay_names() -> None:
    """Only letters, digits, `_` and `-` may stand there; the same name is the same everywhere."""
    schema = {"type": "object", "properties": {"jane_doe": {"type": "string"}}, "required": ["jane_doe"]}
    body = body_of("Jane Doe") | {
        "tools": [{"type": "function", "function": {"name": "mail_jane_doe", "parameters": schema}}]
    }
    body["messages"][0]["name"] = "Jane Doe"
    done, map_ = pseudonymised(body, ("PERSON", "Jane Doe"))
    function = done["tools"][0]["function"]
    (key,) = function["parameters"]["properties"]
    assert function["parameters"]["required"] == [key]
    assert function["name"] == f"mail_{key}"
    for name in (key, function["name"], done["messages"][0]["name"]):
        assert re.fullmatch(r"[a-z_]+\d{3}", name)
    assert restored(map_, function["name"]) == ("mail_jane_doe", [])
    assert leaks(map_, wire(done)) == []


def test_the_model_is_not_a_person() -> None:
    """Its name is the admin's, and must arrive."""
    body = body_of("Claude Monet painted.") | {"model": "claude-1"}
    done, map_ = pseudonymised(body, ("PERSON", "Claude"))
    assert done["model"] == "claude-1"
    assert "Claude" not in content(done)
    assert leaks(map_, wire(done)) == []


def test_a_secret_is_never_sent_in_any_form() -> None:
    """Whoever decides denies; should that be forgotten, this does."""
    with pytest.raises(ValueError, match="never leaves"):
        Pseudonyms(KEY, "c").replaced(parts_of(body_of("x y")), [Finding("secret", "PASSWORD", 0, 0, 1, "test")])


def test_code_and_files_are_not_personal() -> None:
    """What the policy lets through stays as it is."""
    parts = parts_of(body_of("print(1)"))
    new, map_ = Pseudonyms(KEY, "c").replaced(parts, [Finding("code", "CODE", 1, 0, 8, "test")])
    assert (new, map_) == (parts, Map((), ()))


def test_what_cannot_be_looked_through_does_not_leave() -> None:
    """Wrapped too deep, or no text: the gate stays shut, and the replacing fails."""
    deep = "Jane Doe lives here, as everybody knows"
    for _ in range(6):
        deep = base64.b64encode(deep.encode()).decode()
    _, map_ = pseudonymised(body_of("Jane Doe"), ("PERSON", "Jane Doe"))
    for body in (wire(body_of(deep)), b"\xff\xfe{", b'"' + b"[" * 10, wire({"a": [[]] * 1} | {"m": _nested(80)})):
        assert leaks(map_, body) in (["UNREADABLE"], []), body
    assert leaks(map_, wire(body_of(deep))) == ["UNREADABLE"]
    assert leaks(map_, wire({"m": _nested(80)})) == ["UNREADABLE"]
    assert leaks(map_, b"\xff\xfe{") == ["UNREADABLE"]
    with pytest.raises(TooWrapped):
        pseudonymised(body_of("Jane Doe", deep), ("PERSON", "Jane Doe"))


def _nested(depth: int) -> Any:
    return "Jane" if depth == 0 else [_nested(depth - 1)]


def test_bytes_that_are_no_json_are_read_all_the_same() -> None:
    """The gate looks at bytes, whatever they are."""
    _, map_ = pseudonymised(body_of("Jane Doe"), ("PERSON", "Jane Doe"))
    assert leaks(map_, b"to=jane+doe&x=1") == ["PERSON"]
    assert leaks(map_, b"to=nobody") == []


FILLERS = st.sampled_from(["said", "to", "met", ",", ".", "\n", "(", ")", '"', "[PERSON_1]", "42", "и", "è", "\u200b"])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_value_is_left_whatever_is_said(data: st.DataObject) -> None:
    """Any values, in any writing, anywhere in a body: the bytes have none, are JSON, and restore to the same text."""
    values = data.draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=4, unique=True))
    texts = [" ".join(value for _, value in values)]
    for _ in range(data.draw(st.integers(0, 3))):
        words = data.draw(
            st.lists(FILLERS | st.sampled_from([form for _, value in values for form in hidden(value)]), max_size=6)
        )
        texts.append(" ".join(words))
    body = body_of(*texts)
    done, map_ = pseudonymised(body, *values)
    sent = wire(done)
    assert leaks(map_, sent) == []
    for message in done["messages"]:
        for each in message.get("tool_calls", []):
            json.loads(each["function"]["arguments"])
    everything = json.dumps(body, ensure_ascii=False).casefold()
    assert not any(pair.pseudonym.casefold() in everything for pair in map_.pairs)
    assert pseudonymised(body, *values) == (done, map_)
    answer, unrestored = restored(map_, content(done))
    assert (answer, unrestored) == (texts[0], [])


TYPES = [*LOOKS, "OTHER"]
ODD = "abcJDée 0159-+.@_'\"\\/{}[]:,\n\u200b\u0301ßİсЖ张ก%&;#=ﬁ１😀"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(ODD, max_size=40) | st.text(max_size=12), min_size=1, max_size=5), st.data())
def test_whatever_is_found_is_gone(texts: list[str], data: st.DataObject) -> None:
    """Any spans of any text, cut anywhere: what they said is not in the bytes, and JSON stays JSON."""
    body = body_of(*texts)
    parts = parts_of(body)
    findings = []
    for _ in range(data.draw(st.integers(1, 4))):
        number = data.draw(st.integers(0, len(parts) - 1))
        start = data.draw(st.integers(0, len(parts[number].text) - 1))
        end = data.draw(st.integers(start + 1, len(parts[number].text)))
        findings.append(Finding("personal", data.draw(st.sampled_from(TYPES)), number, start, end, "test"))
    try:
        new, map_ = Pseudonyms(KEY, "c").replaced(parts, findings)
    except TooWrapped:
        return
    assert leaks(map_, wire(with_texts(body, parts, [part.text for part in new]))) == []
    for old, part in zip(parts, new, strict=True):
        if pieces_of(old.text) is not None:
            json.loads(part.text)


def test_many_values_are_told_apart() -> None:
    """A thousand people in a body, none with the pseudonym of another, in a moment."""
    names = [
        f"Person{chr(97 + number // 26 % 26)}{chr(97 + number % 26)}{'q' * (number // 676)}" for number in range(1000)
    ]
    parts = parts_of(body_of(" and ".join(names)))
    findings = found(parts, *(("PERSON", name) for name in names))
    _, map_ = Pseudonyms(KEY, "c").replaced(parts, findings)
    assert len({pair.pseudonym for pair in map_.pairs}) == len(map_.pairs) == 1000
