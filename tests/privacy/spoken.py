"""What tests of pseudonyms share: bodies in which people are, and what a detector would find there."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from server.privacy.findings import Finding
from server.privacy.payload import Part, parts_of, with_texts
from server.privacy.pseudonyms import Map, Pseudonyms

KEY = bytes(range(32))
# Values that have nothing of each other in them.
PEOPLE = {
    "PERSON": ["Jane Doe", "Krisztián Szöllösy", "Faina D. Yefremova", "张伟", "Иван Петров", "Li", "Ng"],
    "EMAIL": ["j.roe@corp-mail.com", "UtaKortig@jourrapide.com"],
    "PHONE": ["+1 212 730 4410", "(37) 788-063"],
    "IBAN": ["GB56HXDO88167774656119"],
    "CREDIT_CARD": ["4454 7945 1139 0933"],
    "SOCIAL_SECURITY": ["460-89-9847"],
    "ADDRESS": ["6750 Koskikatu 25 Apt. 864\nArtilleros"],
    "ORGANISATION": ["Microbilt Corporation"],
    "PLACE": ["LAPPEENRANTA", "SK"],
    "BIRTH_DATE": ["12.05.1990"],
    "IP_ADDRESS": ["106.31.73.20", "2a00:1450:4001:81b::200e"],
    "URL": ["https://www.ClickPhobia.com.br/"],
    "AGE": ["74"],
    "HEALTH": ["chronic bronchitis"],
}
VALUES = [(type_, text) for type_, texts in PEOPLE.items() for text in texts]


def hidden(text: str) -> list[str]:
    """Other ways to write it."""
    return [
        text,
        text.upper(),
        text.replace("a", "a\u200b").replace("o", "o\u00ad").replace("1", "1\u200b"),
        "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text),
        quote(text),
        json.dumps(text)[1:-1],
        base64.b64encode(f"He is {text}, as you know".encode()).decode(),
        text.replace(" ", "_"),
        text.replace(" ", "\u00a0"),
    ]


def body_of(*texts: str) -> dict[str, Any]:
    """A body in which each stands somewhere else."""
    places: list[Callable[[str], dict[str, Any]]] = [
        lambda text: {"role": "system", "content": text},
        lambda text: {"role": "user", "content": [{"type": "text", "text": text}]},
        lambda text: {"role": "assistant", "tool_calls": [call(text)]},
        lambda text: {"role": "tool", "tool_call_id": "call_1", "content": text},
    ]
    return {"model": "big", "messages": [places[index % len(places)](text) for index, text in enumerate(texts)]}


def call(text: str) -> dict[str, Any]:
    """Of a tool, with the text in its arguments."""
    return {
        "id": "call_1",
        "type": "function",
        "function": {"name": "note", "arguments": json.dumps({"text": text, "count": 12})},
    }


def found(parts: Sequence[Part], *values: tuple[str, str]) -> list[Finding]:
    """The first place of each."""
    findings = []
    for type_, text in values:
        part, start = next((index, at) for index, each in enumerate(parts) if (at := each.text.find(text)) >= 0)
        findings.append(Finding("personal", type_, part, start, start + len(text), "test"))
    return findings


def pseudonymised(
    body: dict[str, Any], *values: tuple[str, str], conversation: str = "c", key: bytes = KEY
) -> tuple[dict[str, Any], Map]:
    """The body as it would leave."""
    parts = parts_of(body)
    new, map_ = Pseudonyms(key, conversation).replaced(parts, found(parts, *values))
    return with_texts(body, parts, [part.text for part in new]), map_


def wire(body: dict[str, Any]) -> bytes:
    """Its bytes."""
    return json.dumps(body, ensure_ascii=False).encode()
