"""Restoring: values come back however a model writes their pseudonyms, and however the stream is cut."""

import json
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from server.privacy.pseudonyms import Map, Pair
from server.privacy.restoring import Restorer, restored
from tests.privacy.spoken import VALUES, body_of, pseudonymised

NAME = Pair("Brelonda Vlomanke", "Jane Doe", "PERSON", "words")
FIRST, LAST = Pair("Brelonda", "Jane", "PERSON", "words"), Pair("Vlomanke", "Doe", "PERSON", "words")
MAIL = Pair("skarilde417@example.invalid", "j.roe@corp.com", "EMAIL", "words")
PHONE = Pair("+999 17 7837 2283", "+1 212 730 4410", "PHONE", "digits")
STREET = Pair("4238 Stekalke Street", "12 Elm Rd\nFlat 2", "ADDRESS", "words")
SHORT_STREET = Pair("Stekalke Street", "12 Elm Rd\nFlat 2", "ADDRESS", "words")
COMPANY = Pair("Zlunilda Ltd", "Acme Corp", "ORGANISATION", "words")
DATE = Pair("1852-05-12", "12.05.1990", "BIRTH_DATE", "words")
AGE = Pair("AGE-E6SUZW", "33", "AGE", "words")
HANDLE = Pair("grakeldo276", "jane_doe", "PERSON", "exact")
PAIRS = (NAME, FIRST, LAST, MAIL, PHONE, STREET, SHORT_STREET, COMPANY, DATE, AGE, HANDLE)
MAP = Map(PAIRS, ())


def streamed(pieces: Iterable[str], *, in_json: bool = False) -> tuple[str, list[str]]:
    """What comes out, and what could not be restored."""
    restorer = Restorer(MAP, in_json=in_json)
    done = "".join([*(restorer.feed(piece) for piece in pieces), restorer.end()])
    return done, restorer.unrestored


def test_as_it_was_said() -> None:
    """Each pseudonym alone and in a sentence; text without any is what it is."""
    for pair in PAIRS:
        assert streamed([pair.pseudonym]) == (pair.original, [])
        assert streamed([f"So {pair.pseudonym}, then."]) == (f"So {pair.original}, then.", [])
    assert streamed(["Nothing of that. ", "", "*Brel* and +99 on 18.5"]) == (
        "Nothing of that. *Brel* and +99 on 18.5",
        [],
    )
    assert streamed([]) == ("", [])
    assert restored(Map((), ()), "Brelonda") == ("Brelonda", [])


def test_as_models_write_it() -> None:
    """Case, endings, blanks, line breaks, markup; a word of a name alone; other scripts around it."""
    for said, meant in {
        "BRELONDA VLOMANKE": "JANE DOE",
        "brelonda vlomanke": "Jane Doe",
        "Brelonda's and Brelonda’s": "Jane's and Jane’s",
        "Brelondas Haus, die Vlomankes": "Janes Haus, die Does",
        "Ms Vlomanke, dear Brelonda": "Ms Doe, dear Jane",
        "Brelonda\nVlomanke, Brelonda\u00a0Vlomanke, Brelonda  Vlomanke": "Jane Doe, Jane Doe, Jane Doe",
        "Brelonda-Vlomanke, brelonda_vlomanke": "Jane Doe, Jane Doe",
        "**Brelonda Vlomanke** `Brelonda` _Vlomanke_": "**Jane Doe** `Jane` _Doe_",
        "**Brelonda** *Vlomanke*": "**Jane** *Doe*",
        "'Brelonda' (Brelonda) [Brelonda](x)": "'Jane' (Jane) [Jane](x)",
        "是Brelonda的": "是Jane的",
        "<skarilde417@example.invalid>, mailto:SKARILDE417@EXAMPLE.INVALID": "<j.roe@corp.com>, mailto:J.ROE@CORP.COM",
        "skarilde417\\@example.invalid": "j.roe@corp.com",
        "999-17-7837-2283, +9991778372283, +999 (17) 7837.2283": "+1 212 730 4410, +1 212 730 4410, +1 212 730 4410",
        "4238 Stekalke Street; Stekalke Street": "12 Elm Rd\nFlat 2; 12 Elm Rd\nFlat 2",
        "Age E6SUZW, AGE\\-E6SUZW, `AGE-E6SUZW`": "33, 33, `33`",
        "1852/05/12": "12.05.1990",
        "mail_grakeldo276": "mail_jane_doe",
    }.items():
        assert streamed([said]) == (meant, []), said


def test_what_only_looks_like_one() -> None:
    """Longer words and other numbers are nobody's."""
    for text in ("Brelondanium", "xBrelonda", "1999177837228", "Vlo manke", "èBrelonda"):
        assert streamed([text])[0] == text


def test_what_cannot_be_restored_is_told() -> None:
    """Parts, other spellings, other forms of a date; each once; the text stays as the model wrote it."""
    for said, told in {
        "Brelondanium and Brelondanium": ["Brelonda"],
        "Brelon-da": ["Brelon-da"],
        "write to skarilde417 at once": ["skarilde417"],
        "the Stekalke Avenue": ["Stekalke"],
        "May 12th, 1852": ["1852"],
        "B r e l o n d a": ["B r e l o n d a"],
        "it ends with Brelo": ["Brelo"],
        "call +999 17 78": ["+999 17 78"],
    }.items():
        text, unrestored = streamed(said)
        assert (text, [each.lstrip("+") for each in unrestored]) == (said, [each.lstrip("+") for each in told]), said
    assert streamed(["Brelonda and Brelonda"]) == ("Jane and Jane", [])


def test_a_provider_that_echoes() -> None:
    """The prompt that left comes back as it was before."""
    texts = [f"{type_}: {value} and again {value}." for type_, value in VALUES]
    done, map_ = pseudonymised(body_of("\n".join(texts)), *VALUES)
    answer = done["messages"][0]["content"]
    assert not any(value in answer for _, value in VALUES if len(value) > 3)
    assert restored(map_, answer) == ("\n".join(texts), [])


def test_arguments_of_tools() -> None:
    """Values are written as JSON writes them: line breaks and quotes of the original do not break it."""
    map_ = Map((Pair("Brelonda", 'Jane "J"\nDoe\\', "PERSON", "words"),), ())
    arguments = json.dumps({"to": "Brelonda", "text": "Dear Brelonda's"})
    text, unrestored = restored(map_, arguments, in_json=True)
    assert json.loads(text) == {"to": 'Jane "J"\nDoe\\', "text": 'Dear Jane "J"\nDoe\\\'s'}
    assert unrestored == []


def test_it_holds_back_no_more_than_it_must() -> None:
    """Text that cannot become a pseudonym is said at once; what can is held, and no longer than the longest one."""
    restorer = Restorer(MAP)
    assert restorer.feed("Hello there, how are you") == "Hello there, how are you"
    assert restorer.feed(" Bre") == " "
    assert restorer.feed("ad") == "Bread"
    assert restorer.feed(" Brelonda") == " "
    assert restorer.feed(" Vlomanke is") == ""
    assert restorer.feed(" " + "x" * 60) == "Jane Doe is " + "x" * 60
    held = 0
    restorer = Restorer(MAP)
    for number in range(400):
        held += 1 - len(restorer.feed("9" if number % 3 else "+"))
        assert held <= 60
    assert restorer.end()


def test_it_costs_little() -> None:
    """A long answer in small pieces, with many names to look for."""
    pairs = tuple(Pair(f"Brel{chr(97 + n // 26)}{chr(97 + n % 26)}da", f"N{n}", "PERSON", "words") for n in range(300))
    restorer = Restorer(Map(pairs, ()))
    text = "and Brelaada met Brelbbda in the long and rather tedious course of events. " * 400
    done = "".join([*(restorer.feed(text[at : at + 4]) for at in range(0, len(text), 4)), restorer.end()])
    assert done == text.replace("Brelaada", "N0").replace("Brelbbda", "N27")


SPOKEN = [
    *(pair.pseudonym for pair in PAIRS),
    *(pair.pseudonym.upper() for pair in PAIRS),
    *(pair.pseudonym.replace(" ", "\n") for pair in PAIRS),
    *(pair.pseudonym[: len(pair.pseudonym) // 2] for pair in PAIRS),
    *(pair.pseudonym[1:] for pair in PAIRS),
    *(
        "'s",
        "s",
        "es",
        "’s",
        " ",
        "**",
        "_",
        "\n",
        ".",
        "+",
        "(",
        "é",
        "是",
        "\u200b",
        "\0",
        "\\n",
        "ſ",
        "İ",
        "K",
        "17",
        "the",
    ),
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(SPOKEN) | st.text(max_size=3), max_size=12), st.data(), st.booleans())
def test_chunks_do_not_matter(spoken: list[str], data: st.DataObject, in_json: bool) -> None:
    """Any pieces of any text give the same as the whole, and tell the same of what could not be restored."""
    text = "".join(spoken)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = streamed([text], in_json=in_json)
    assert streamed(pieces, in_json=in_json) == whole
    assert streamed(text, in_json=in_json) == whole


GAPS = st.sampled_from([", ", ".\n", " (", "** ", ": ", " und "])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PAIRS), GAPS), max_size=8), st.integers(1, 9))
def test_every_pseudonym_comes_back(said: list[tuple[Pair, str]], size: int) -> None:
    """Whatever stands between them, and however they are cut."""
    text = "".join(f"{pair.pseudonym}{gap}" for pair, gap in said)
    meant = "".join(f"{pair.original}{gap}" for pair, gap in said)
    assert streamed(text[at : at + size] for at in range(0, len(text), size)) == (meant, [])
