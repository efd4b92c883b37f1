"""Secrets, plain and hidden. Every one here is made up, and put together so that no scanner takes it for a real one."""

import base64
import json
import subprocess
import sys
import urllib.parse
from random import Random
from string import ascii_letters, ascii_uppercase, digits

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.privacy.detectors.looking import PIECE
from server.privacy.detectors.secrets import Secrets, look
from server.privacy.findings import Finding
from server.privacy.payload import Part, parts_of
from server.privacy.words import TYPES

_CHANCE = Random(20261124)  # noqa: S311 - of nobody's secrets


def _drawn(length: int, letters: str = ascii_letters + digits) -> str:
    return "".join(_CHANCE.choice(letters) for _ in range(length))


SECRETS = {
    "ANTHROPIC_KEY": "sk-ant-" + "api03-" + _drawn(93) + "AA",
    "OPENAI_KEY": "sk-" + "proj-" + _drawn(90),
    "HUGGING_FACE_TOKEN": "hf_" + _drawn(34),
    "GITHUB_TOKEN": "github" + "_pat_" + _drawn(82),
    "GITLAB_TOKEN": "glpat" + "-" + _drawn(20),
    "GOOGLE_KEY": "AIza" + _drawn(35),
    "AWS_KEY": "AKIA" + _drawn(16, ascii_uppercase),
    "TELEGRAM_TOKEN": "1234567890:" + _drawn(35),
    "NPM_TOKEN": "npm_" + _drawn(36),
    "PYPI_TOKEN": "pypi-" + _drawn(90),
    "SLACK_TOKEN": "xox" + "b-" + _drawn(12, digits) + "-" + _drawn(24),
    "STRIPE_KEY": "sk_" + "live_" + _drawn(24),
    "WIRTHFORGE_KEY": "wf-" + _drawn(43),
    "CONNECTION_URL": "postgresql://anna:" + _drawn(9) + "@db.example.org/shop",
}


async def _find(*texts: str) -> list[Finding]:
    return await Secrets().find([Part(("messages", at, "content"), text) for at, text in enumerate(texts)])


@pytest.mark.parametrize("type_", SECRETS)
async def test_a_known_token_is_found_in_every_wrapping(type_: str) -> None:
    """Plain, in base64, URL-encoded, with zero-width characters, in JSON, and as a file's name."""
    secret = SECRETS[type_]
    wrapped = [
        f"use {secret} please",
        f"use {base64.b64encode(secret.encode()).decode()} please",
        f"use {urllib.parse.quote(secret, safe='').replace('-', '%2D')} please",
        "use " + "\u200b".join(secret) + " please",
        json.dumps({"arguments": json.dumps({"x": secret})}),
        f"notes/{secret}.txt",
    ]
    found = await _find(*wrapped)
    assert {finding.part for finding in found if finding.type == type_} >= set(range(5))
    assert {finding.part for finding in found} == set(range(6))
    plain = next(finding for finding in found if finding.part == 0 and finding.type == type_)
    assert wrapped[0][plain.start : plain.end] in secret


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("my password is hunter2!", "hunter2"),
        ("Das Passwort für das WLAN lautet Geheim123.", "Geheim123"),
        ("passwort: sommer2024", "sommer2024"),
        ('{"password": "correct horse"}', "correct horse"),
        ("DB_PASSWORD=hunter2", "hunter2"),
        ("export API_TOKEN=abcd1234efgh", "abcd1234efgh"),
        ("api_key = 'abcd1234abcd1234'", "abcd1234abcd1234"),
        ("Authorization: Bearer abcdef1234567890abcdef", "abcdef1234567890abcdef"),
        ("curl -u admin:hunter2 https://example.org", "admin:hunter2"),
        ("redis://:p4ss@cache:6379", "p4ss"),
        ("die PIN ist 4711", "4711"),
        (r"{\"client_secret\": \"aB3dE5fG7hJ9\"}", "aB3dE5fG7hJ9"),
    ],
)
async def test_a_value_at_a_secrets_name_is_one(text: str, secret: str) -> None:
    """In a sentence, in an environment file, in code, in JSON, in a header, on a command line, in a URL."""
    found = await _find(text)
    assert any(secret in text[finding.start : finding.end] for finding in found)


async def test_a_private_key_is_found_to_its_end() -> None:
    """The finding spans the whole block, not its first line."""
    block = "-----BEGIN RSA " + "PRIVATE KEY-----\n" + (_drawn(64) + "\n") * 50 + "-----END RSA " + "PRIVATE KEY-----"
    found = [finding for finding in await _find(f"here: {block} bye") if finding.type == "PRIVATE_KEY"]
    assert [(finding.start, finding.end) for finding in found] == [(6, 6 + len(block))]


async def test_fields_of_a_tool_call_are_looked_at_by_their_names() -> None:
    """The value of `password` is a secret although it looks like a word; its description is not."""
    body = {"messages": [{"role": "user", "content": [{"input": {"password": "sunflower", "colour": "sunflower"}}]}]}
    parts = parts_of(body)
    found = await Secrets().find(parts)
    assert [parts[finding.part].path[-1] for finding in found] == ["password"]
    tool = {"parameters": {"properties": {"password": {"type": "string", "description": "The user's password"}}}}
    assert await Secrets().find(parts_of({"tools": [tool]})) == []


@pytest.mark.parametrize(
    "text",
    [
        "hello how are you",
        "How do I reset my password?",
        "I forgot my password: what now?",
        "The secret is to practise every day.",
        "password: required",
        "Das Passwort ist falsch",
        "def f(password: str) -> None:",
        "token = tokenizer.encode(text)",
        "max_tokens: 4096",
        "api_key=os.environ['OPENAI_API_KEY']",
        "password = getpass.getpass()",
        "Password: ********",
        "API key: <your-key>",
        "password=${DB_PASSWORD}",
        "The commit 9fceb02d0ae598e95dc970b74767f19372d61af8 broke it",
        "id 550e8400-e29b-41d4-a716-446655440000",
        "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen",
        "https://example.org/a/long/path/with/many/parts/and-more-words-2024",
        "if password == user.password:",
    ],
)
async def test_what_only_talks_about_secrets_is_none(text: str) -> None:
    """Words, templates, references, checksums and identifiers, and the trap of detect-secrets' entropy."""
    assert await _find(text) == []


async def test_every_type_can_be_told() -> None:
    """Whatever is found has plain words."""
    found = await _find(*SECRETS.values())
    assert {finding.type for finding in found} <= set(TYPES)


async def test_a_secret_is_found_wherever_the_text_is_cut() -> None:
    """Long texts are looked at in pieces; a token across the cut is in one of them."""
    secret = SECRETS["GITHUB_TOKEN"]
    for at in range(PIECE - len(secret) - 8, PIECE + 8, 17):
        text = "x" * (at - 1) + " " + secret + " " + "y" * PIECE
        assert any(finding.type == "GITHUB_TOKEN" and finding.start == at for finding in await _find(text)), at


@settings(max_examples=50, deadline=None)
@given(junk=st.binary(max_size=600))
def test_random_bytes_are_no_fault(junk: bytes) -> None:
    """Any text can be looked at, lone surrogates included; positions are within it."""
    text = junk.decode(errors="surrogateescape")
    assert all(0 <= match.start < match.end <= len(text) for match in look(text))


@pytest.mark.parametrize(
    "unit", ["a", "a.", "=", "password=", "://", "eyJ", "A1", "'", "key ", "-----BEGIN ", '\\"', "$2b$"]
)
async def test_no_expression_runs_away(unit: str) -> None:
    """Text made to make expressions try everything is looked through within the test's time, and what follows too."""
    found = await _find(unit * (50_000 // len(unit)), '{"password": "correct horse"}')
    assert 1 in {one.part for one in found}


def test_nothing_opens_a_connection() -> None:
    """In a fresh process in which no socket can connect and no name be resolved, all detectors load and find."""
    program = """
import asyncio, socket
def refuse(*args, **kwargs):
    raise SystemExit("something asked the network: %r" % (args,))
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
from server.privacy.detectors.code import Code
from server.privacy.detectors.secrets import Secrets
from server.privacy.detectors.structured import Structured
from server.privacy.payload import Part
text = "password: hunter2, petra@example.org, https://example.org/x, +49 170 1234567"
parts = [Part(("messages", 0, "content"), text)]
for detector in (Code(), Secrets(), Structured()):
    print(detector.name, detector.version, sorted({finding.type for finding in asyncio.run(detector.find(parts))}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=80, check=False)  # noqa: S603 - our own interpreter
    assert done.returncode == 0, done.stderr
    assert "['EMAIL', 'PHONE', 'URL']" in done.stdout
    assert "['PASSWORD']" in done.stdout
