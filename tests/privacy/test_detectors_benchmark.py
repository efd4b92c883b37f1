"""The benchmark of the detectors counts what is there, on three texts made for it."""

import json
from pathlib import Path

import pytest

from benchmarks import detectors
from benchmarks.pseudonyms import texts
from server.privacy.detectors.structured import Structured


def _span(said: str, type_: str, value: str) -> dict[str, str | int]:
    start = said.index(value)
    return {
        "entity_type": type_,
        "entity_value": value,
        "start_position": start,
        "end_position": start + len(value),
    }


FOUND = "Write to petra@example.org, says Petra."
ALARM = "The server is at 203.0.113.7 today."
SECRET = "My password is hunter2! The card is 4111 1111 1111 1111 or so"
TEXTS = [
    {
        "full_text": FOUND,
        "spans": [_span(FOUND, "EMAIL_ADDRESS", "petra@example.org"), _span(FOUND, "PERSON", "Petra")],
    },
    {"full_text": ALARM, "spans": []},
    {"full_text": SECRET, "spans": [_span(SECRET, "CREDIT_CARD", "is 4111 1111 1111 1111")]},
]


async def test_the_tables_count_what_is_in_the_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An address found, a name missed, a card of which a word is missing, a false alarm, a secret that is no span."""
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(TEXTS))
    await detectors.main(path)
    lines = capsys.readouterr().out.splitlines()
    assert "| EMAIL | 1 | 100.0 % (1) | 100.0 % (1) | 0.0 % (0) | 0.0 % (0) | 0.0 % (0) |" in lines
    assert "| PERSON | 1 | 100.0 % (1) | 0.0 % (0) | 0.0 % (0) | 100.0 % (1) | 100.0 % (1) |" in lines
    assert "| CREDIT_CARD | 1 | 100.0 % (1) | 0.0 % (0) | 100.0 % (1) | 0.0 % (0) | 0.0 % (0) |" in lines
    assert "| all | 3 | 100.0 % (3) | 33.3 % (1) | 33.3 % (1) | 33.3 % (1) | 33.3 % (1) |" in lines
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:6]] for cells in (one.split("|") for one in lines[8:17])
    }
    assert rows["2 with personal data: every span found whole"] == ["0.0 % (0)"] * 4
    assert rows["… some of it found"] == ["0.0 % (0)", "100.0 % (2)", "100.0 % (2)", "0.0 % (0)"]
    assert rows["1 clean: something found (blocked without need)"] == ["0.0 % (0)", *["100.0 % (1)"] * 2, "0.0 % (0)"]
    assert rows["all findings"] == ["1", "3", "4", "0"]
    assert rows["… of these false alarms"] == ["100.0 % (1)", "33.3 % (1)", "50.0 % (2)", "0"]
    assert "| IP_ADDRESS | structured | 1 | 0.0 % (0) | 0.0 % (0) | 100.0 % (1) | 1 |" in lines
    assert "| PASSWORD | secrets | 1 | 0.0 % (0) | 0.0 % (0) | 100.0 % (1) | 0 |" in lines


async def test_nobody_looks_away_from_a_text_that_is_unclear(tmp_path: Path) -> None:
    """What is wrapped too deeply to be looked at is counted as such, not as clean."""
    path = tmp_path / "texts.json"
    path.write_text(json.dumps([{"full_text": "%25252525252525" * 4 + "41", "spans": []}]))
    looked = await detectors.tier(Structured(), list(texts(path)))
    assert [each.is_unclear for each in looked.looked] == [True]
