"""Code, attachments and names of files; and what only looks like them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.privacy.detectors.code import Code, is_opaque_content, look
from server.privacy.detectors.looking import PIECE
from server.privacy.findings import Finding, Unclear
from server.privacy.payload import Part, parts_of
from server.privacy.words import TYPES


async def _find(*texts: str) -> list[Finding]:
    return await Code().find([Part(("messages", at, "content"), text) for at, text in enumerate(texts)])


def _asking(content: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}]}


CODE = [
    "```python\nprint(1)\n```",
    "~~~\nhello\n~~~",
    "> ```js\n> start()\n> ```",
    "```\nnever closed",
    "def add(a):\n    return a + 1",
    "SELECT name FROM people WHERE id = 3",
    "x = 1\ny = 2\nprint(x + y)",
    "for i in range(3):\n    total += i\n    print(total)",
    "int main(void) {\n  return 0;\n}",
    '<div class="a">\n  <p>hi</p>\n</div>',
    "docker run -it ubuntu bash\ncd /srv\ngit pull",
    '{\n  "a": 1,\n  "b": [2]\n}',
]
# Of these the beginning is enough.
OUTPUT = ['Traceback (most recent call last):\n  File "a", line 1', "diff --git a/x b/x\n@@ -1,2 +1,2 @@\n-a\n+b"]
BEFORE = "Please tell me what this does and why it fails:\n\n"
AFTER = "\n\nThank you very much for all of your help.\n"


@pytest.mark.parametrize("text", CODE)
async def test_code_is_found_to_its_last_line(text: str) -> None:
    """In fences, and without them: functions, queries, markup, commands, data."""
    found = await _find(text)
    assert [(finding.kind, finding.type, finding.start, finding.end) for finding in found] == [
        ("code", "CODE", 0, len(text))
    ]


@pytest.mark.parametrize("text", [*CODE, *OUTPUT])
async def test_code_among_sentences_is_found_where_it_begins(text: str) -> None:
    """The sentences around it are none; but a fence that is never closed goes to the end of the text."""
    found = [finding for finding in await _find(BEFORE + text + AFTER) if finding.type == "CODE"]
    assert [finding.start for finding in found] == [len(BEFORE)]
    assert found[0].end <= len(BEFORE + text) or text.endswith("never closed")


async def test_a_single_line_is_code_only_where_there_is_nothing_else() -> None:
    """A known limit: in a sentence's company one line that looks like code is taken for prose."""
    line = 'printf("hi, %d", 1);'
    assert [finding.type for finding in await _find(line)] == ["CODE"]
    assert await _find(BEFORE + line + AFTER) == []


@pytest.mark.parametrize(
    "text",
    [
        "What does `len` do in Python, and what is a class?",
        "Write me a poem about rain.",
        "- eggs\n- milk\n- flour",
        "1. First do this.\n2. Then that.\n3. Done.",
        "Dear Petra,\nthank you for your letter;\nI was glad to read it;\nwrite soon.",
        "Return to sender.\nImport duties rose.\nFrom then on it rained.",
        "Name: Anna\nAge: 12\nCity: Ulm",
        "E = mc^2",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "# Titel\n\n## Absatz\n\nText",
        "```\n\n```",
        "It is 3.11 on example.com, e.g. at noon (or later).",
        "https://example.org/a/b/c",
    ],
)
async def test_prose_lists_and_tables_are_no_code(text: str) -> None:
    """Lines that begin with a keyword, end with a semicolon, or hold an equals sign are not yet code."""
    assert await _find(text) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("see report.pdf.", "report.pdf"),
        ("Kündigung_Meier.docx liegt bei", "Kündigung_Meier.docx"),
        (r"in C:\Users\petra\diary.txt today", r"C:\Users\petra\diary.txt"),
        (r"on \\server\people\list", r"\\server\people\list"),
        ("in /srv/petra/letter", "/srv/petra/letter"),
        ("and ~/.ssh/id_rsa", "~/.ssh/id_rsa"),
        ("file:///srv/people.csv", "file:///srv/people.csv"),
    ],
)
async def test_names_of_files_are_found(text: str, name: str) -> None:
    """By the ending, by the folder, by the drive, by the server."""
    assert any(
        text[finding.start : finding.end] == name and (finding.kind, finding.type) == ("file", "FILE_NAME")
        for finding in await _find(text)
    )


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGFsbG8="}}],
        [{"type": "input_audio", "input_audio": {"data": "aGFsbG8=", "format": "wav"}}],
        [{"type": "file", "file": {"file_data": "data:application/pdf;base64,aGFsbG8=", "filename": "a"}}],
        [{"type": "document", "source": {"type": "base64", "data": "aGFsbG8="}}],
        "look: data:image/png;base64,aGFsbG8=",
    ],
)
async def test_nobody_is_sure_about_an_attachment_that_nobody_can_read(content: Any) -> None:
    """A picture, a sound, a document, also one in the middle of a text: found, and unclear as well."""
    with pytest.raises(Unclear) as doubt:
        await Code().find(parts_of(_asking(content)))
    assert "ATTACHMENT" in {finding.type for finding in doubt.value.findings}
    assert "aGFsbG8" not in doubt.value.sentence


async def test_an_attachment_of_text_or_by_its_address_is_found_without_doubt() -> None:
    """What other detectors decode and read, and what only names a place, hides nothing from them."""
    linked = {"type": "image_url", "image_url": {"url": "https://example.org/cat"}}
    text = {"type": "file", "file": {"file_data": "data:text/plain;base64,aGFsbG8=", "filename": "notes"}}
    parts = parts_of(_asking([linked, text]))
    found = await Code().find(parts)
    assert [(parts[finding.part].path[-1], finding.type) for finding in found] == [
        ("url", "ATTACHMENT"),
        ("file_data", "ATTACHMENT"),
        ("filename", "FILE_NAME"),
    ]
    assert all(finding.end == len(parts[finding.part].text) for finding in found)


async def test_the_content_of_a_tools_call_is_looked_at_as_text() -> None:
    """A field called `data` of a tool's arguments is no attachment; code in it is code."""
    call = {"type": "tool_use", "id": "1", "name": "run", "input": {"data": "x = 1\ny = 2\nprint(x + y)"}}
    found = await Code().find(parts_of({"messages": [{"role": "assistant", "content": [call]}]}))
    assert [finding.type for finding in found] == ["CODE"]


async def test_code_is_found_wherever_a_long_text_is_cut() -> None:
    """Texts are looked at in pieces that overlap."""
    code = "\n```\nimport os\n```\n"
    for at in range(PIECE - len(code) - 4, PIECE + 4, 5):
        text = "word " * (at // 5) + code + "word " * PIECE
        assert any(
            finding.type == "CODE" and "import os" in text[finding.start : finding.end] for finding in await _find(text)
        )


def test_which_content_can_be_read() -> None:
    """By its media type; none is not text."""
    assert not is_opaque_content("data:text/csv;charset=utf-8;base64,YQ==")
    assert not is_opaque_content("data:application/json;base64,YQ==")
    assert is_opaque_content("data:;base64,YQ==")
    assert is_opaque_content("data:application/zip;base64,YQ==")
    assert not is_opaque_content("file-abc123")
    assert is_opaque_content("YQ==")


async def test_every_type_can_be_told() -> None:
    """Whatever is found has plain words."""
    assert {
        finding.type for finding in await _find(*CODE, *OUTPUT, "report.pdf", "data:text/plain;base64,YQ==")
    } <= set(TYPES)


@settings(max_examples=50, deadline=None)
@given(junk=st.text(max_size=400))
def test_random_text_is_no_fault(junk: str) -> None:
    """Any text can be looked at; positions are within it."""
    assert all(0 <= match.start < match.end <= len(junk) for match in look(junk))


@pytest.mark.parametrize("unit", ["a", "a.", "```\n", "> ", "x = ", "/home/", "data:a/", "(", "<a ", "a;\n"])
async def test_no_expression_runs_away(unit: str) -> None:
    """Text made to make expressions try everything is looked through within the test's time, and what follows too."""
    found = await _find(unit * (20_000 // len(unit)), "```python\nprint(sum(range(10)))\n```")
    assert 1 in {one.part for one in found}
