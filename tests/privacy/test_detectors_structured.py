"""Personal data by its form."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.privacy.detectors import structured
from server.privacy.detectors.forms import has_luhn, has_mod97
from server.privacy.detectors.structured import Structured, look
from server.privacy.findings import Finding, Unclear
from server.privacy.payload import Part, parts_of
from server.privacy.words import TYPES


async def _find(*texts: str) -> list[Finding]:
    return await Structured().find([Part(("messages", at, "content"), text) for at, text in enumerate(texts)])


@pytest.mark.parametrize(
    ("type_", "text", "datum"),
    [
        ("EMAIL", "write to petra.meier@example.org.", "petra.meier@example.org"),
        ("EMAIL", "write to pet\u200bra@example.org", "pet\u200bra@example.org"),
        ("EMAIL", "admin@intranet", "admin@intranet"),
        ("PHONE", "call +49 (0)30 1234-5678", "+49 (0)30 1234-5678"),
        ("PHONE", "ruf mich an: 0170/1234567", "0170/1234567"),
        ("PHONE", "(212) 555-0143", "(212) 555-0143"),
        ("PHONE", "my mobile is 5550143", "5550143"),
        ("IBAN", "DE89 3704 0044 0532 0130 00", "DE89 3704 0044 0532 0130 00"),
        ("IBAN", "de89370400440532013000", "de89370400440532013000"),
        ("CREDIT_CARD", "4111 1111 1111 1111", "4111 1111 1111 1111"),
        ("TAX_ID", "Meine Steuer-ID ist 86095742719", "86095742719"),
        ("ID_CARD", "Personalausweis Nr. L01X00T44", "L01X00T44"),
        ("SOCIAL_SECURITY", "15070649C103", "15070649C103"),
        ("SOCIAL_SECURITY", "ssn 460-89-9847", "460-89-9847"),
        ("ADDRESS", "Ich wohne Lindenstraße 12a, 10969 Berlin.", "Lindenstraße 12a, 10969 Berlin"),
        ("ADDRESS", "742 Evergreen Terrace, Springfield, OR 97403", "742 Evergreen Terrace, Springfield, OR 97403"),
        ("ADDRESS", "12 rue de la Paix", "12 rue de la Paix"),
        ("ADDRESS", "London SW1A 1AA", "SW1A 1AA"),
        ("BIRTH_DATE", "geboren am 3. März 1984", "3. März 1984"),
        ("BIRTH_DATE", "DOB: 03/04/1984", "03/04/1984"),
        ("AGE", "she is a 42-year-old nurse", "42"),
        ("PERSON", "Sehr geehrte Frau Dr. Meier-Lüdenscheidt", "Meier-Lüdenscheidt"),
        ("PERSON", "My name is Petra van der Meer and", "Petra van der Meer"),
        ("PERSON", "Viele Grüße\nPetra Meier", "Petra Meier"),
        ("PERSON", r"{\"first_name\": \"petra\"}", "petra"),
        ("IP_ADDRESS", "from 203.0.113.7 at night", "203.0.113.7"),
        ("IP_ADDRESS", "from 2001:db8::8a2e:370:7334", "2001:db8::8a2e:370:7334"),
        ("URL", "see https://example.org/~petra", "https://example.org/~petra"),
    ],
)
async def test_a_form_is_found(type_: str, text: str, datum: str) -> None:
    """Each type in German and English, and the finding covers exactly the datum."""
    found = [text[finding.start : finding.end] for finding in await _find(text) if finding.type == type_]
    assert datum in found


CLEAN = [
    "The population of Germany was 83.2 million in 2021, up from 82,000,000 in 2010.",
    "Version 3.11.4 was released on 2023-06-06; see PEP 678.",
    "Der Zug fährt um 14:35 Uhr auf Gleis 7 ab und kommt um 18:02 an.",
    "The price rose from $1,299.99 to $1,499.00 between 2019 and 2023.",
    "Rezept: 500 g Mehl, 250 ml Milch, 3 Eier. Bei 180 Grad 40 Minuten backen.",
    "ISBN 978-3-16-148410-0 is a book about typography.",
    "Is 2147483647 the largest 32-bit signed integer? What about 4294967296?",
    "Pi is 3.14159265358979323846.",
    "Was bedeutet § 433 BGB Absatz 1 Satz 2?",
    "Population: 1 234 567 (2020), 1 345 678 (2022).",
    "The UN resolution 2334 (2016) passed 14-0.",
    "Dear Sir or Madam,\nthank you.",
    "Compute 12345678 * 87654321.",
    "My budget is 1.500.000 Euro for 12 months.",
    "The server listens on 127.0.0.1 and 0.0.0.0.",
    "Use HTTP status 404, 500 or 503? And port 8080 or 443?",
]


@pytest.mark.parametrize("text", CLEAN)
async def test_numbers_of_every_day_are_nobodys(text: str) -> None:
    """Amounts, versions, dates, times, laws and limits of integers are no personal data."""
    assert await _find(text) == []


async def test_fields_and_names_are_looked_at_by_their_keys() -> None:
    """A person's name in a field of a tool call and in a message's `name`; a tool's name is none."""
    body = {
        "messages": [
            {"role": "user", "name": "petra", "content": [{"input": {"surname": "meier", "city": "ulm"}}]},
            {"role": "tool", "name": "look_up", "content": "found"},
        ],
        "tools": [{"function": {"name": "petra"}}],
    }
    parts = parts_of(body)
    found = await Structured().find(parts)
    assert [(parts[finding.part].text, finding.type) for finding in found] == [("petra", "PERSON"), ("meier", "PERSON")]


async def test_a_rule_that_gives_up_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presidio logs a time-out of its expressions and goes on; here that is a doubt, and what was found is kept."""

    class GivesUp:
        supported_entities = ("X",)

        def analyze(self, text: str, entities: object) -> list[object]:
            logging.getLogger("presidio-analyzer").warning(
                "Regex pattern '%s' timed out after %s seconds", text, entities
            )
            return []

    one = structured.recognisers()[0]
    silent = structured.Recogniser("X", GivesUp(), is_enough=False, near=one.near)
    monkeypatch.setattr(structured, "recognisers", lambda: (silent,))
    with pytest.raises(Unclear) as doubt:
        await _find("petra@example.org 1")
    assert [finding.type for finding in doubt.value.findings] == ["EMAIL"]


class _Heard(logging.Handler):
    """What reaches the box's own log (pytest's listens to loggers that pass nothing on, too)."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


async def test_the_librarys_log_never_reaches_ours() -> None:
    """Presidio logs texts that it cannot make sense of; no log of this box may hold them."""
    root, heard = logging.getLogger(), _Heard()
    root.addHandler(heard)
    try:
        await _find("DE00 1234 IBAN petra")
        logging.getLogger("presidio-analyzer").error("Failed to validate text %s", "petra")
        logging.getLogger("some-other").error("heard")
    finally:
        root.removeHandler(heard)
    assert heard.messages == ["heard"]


def test_check_digits() -> None:
    """Luhn's and ISO 7064's, by their own examples."""
    assert has_luhn("79927398713")
    assert not has_luhn("79927398710")
    assert has_mod97("GB29NWBK60161331926819")
    assert not has_mod97("GB29NWBK60161331926818")


async def test_every_type_can_be_told() -> None:
    """Whatever is found has plain words."""
    assert {recogniser.type for recogniser in structured.recognisers()} <= set(TYPES)
    assert {finding.type for finding in await _find(*CLEAN, "petra@example.org, +49 170 1234567")} <= set(TYPES)


@settings(max_examples=50, deadline=None)
@given(junk=st.text(max_size=400))
def test_random_text_is_no_fault(junk: str) -> None:
    """Any text can be looked at; positions are within it."""
    assert all(0 <= match.start < match.end <= len(junk) for match in look(junk))


@pytest.mark.parametrize(
    "unit", ["a", "a.", "1 ", "1-", "A b ", "a@", ":", "Am ", "12 Aa ", "http://a.", "Frau ", "0", "(1) "]
)
async def test_no_expression_runs_away(unit: str) -> None:
    """Text made to make expressions try everything is looked through within the test's time, and what follows too."""
    found = await _find(unit * (12_000 // len(unit)), "Write to jane.doe@example.org.")
    assert 1 in {one.part for one in found}
