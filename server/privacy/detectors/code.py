"""Program code, attachments and the names of files.

Code cannot be made safe by replacing words in it (of proprietary code, 31 to 43 per cent leaks through placeholders:
LLM-Redactor, 2604.12064), so whoever decides only needs to know whether there is some. A block in fences is code. Text
without fences is code where several lines in a row are written as no prose is; a single word in backticks is none.

An attachment is seen by where it stands, or by being a `data:` URL. What is in a picture or a sound nobody here can
tell: then the detector says so, and the verdict is unclear.
"""

import re
from collections.abc import Iterator, Sequence
from threading import Event

from server.privacy.detectors.looking import Match, Stopped, in_thread, pieces
from server.privacy.findings import Finding, Kind, Unclear
from server.privacy.payload import Part

# Lines of code in a row that make a text code, and how many lines among them may be something else.
LINES_MIN = 3
LINES_BETWEEN = 2
# A text made of one or two lines, all of them code, is a snippet where it is longer than this.
SNIPPET_MIN = 12

_FENCED = re.compile(
    r"(?m)^[ \t>]{0,6}(?P<fence>`{3,}|~{3,})[^\n`]{0,60}\n(?P<it>(?:(?![ \t>]{0,6}(?P=fence))[^\n]*(?:\n|\Z))+)"
    r"(?:[ \t>]{0,6}(?P=fence)[`~]*)?"
)
# One of these lines is enough.
_PLAINLY = re.compile(
    r"^(?:#!\s?/|#include\s?[<\"]|<\?php\b|<!DOCTYPE html|package\s[\w.]+;"
    r"|using\s[\w.]+;|import\s(?:static\s)?[\w.]+(?:\.\*)?;"
    r"|from\s[\w.]+\simport\s|(?:async\s)?def\s\w+\s?\(.*\)?|(?:export\s)?(?:default\s)?(?:async\s)?"
    r"function\*?\s\w*\s?\("
    r"|(?:public|private|protected|internal|static|final|abstract)\s[\w<>\[\], ]+[({]"
    r"|(?:pub\s)?(?:async\s)?fn\s\w+\s?[(<]|func\s(?:\(\w+\s\*?\w+\)\s)?\w+\("
    r"|SELECT\s.{1,200}\sFROM\s\w|INSERT\sINTO\s\w|UPDATE\s\w+\sSET\s|DELETE\sFROM\s\w"
    r"|(?:CREATE|ALTER|DROP)\s(?:TABLE|INDEX|VIEW|DATABASE)\s"
    r"|diff --git |@@ -\d+,\d+ \+\d+,\d+ @@|Traceback \(most recent call last\)"
    r"|(?:const|let|var)\s[\w{}\[\], ]+\s?=\s?\S|console\.log\(|System\.out\.print)"
)
_LINE = re.compile(
    r"(?:[;{]|^\}|[;)]\s?\}|\)\s?:|\]\s?:|\)\s?=>|=>\s?\{|\\)\s{0,3}(?://.*|#.*|/\*.*)?$"
    "|^(?:if|elif|else|for|while|try|except|finally|with|switch|case|match"
    "|class|struct|enum|interface|impl|trait|def|return|import|from"
    "|elseif|elsif|end|begin|do|done|fi|then|echo|sudo|pip|npm|git|docker"
    r"|kubectl|cd|export|FROM|RUN|COPY|CMD)\b.{0,200}(?:[:({;\[]$|[=(<>\[\]{}/\\.-]\S"
    "|$)"
    r"|^[\w.\[\]\"'->]{1,80}\s?(?:[-+*/%|&^:]?=)\s?\S|^[\w.]{1,80}\([^)]{0,200}\);?$"
    r"|^(?://|/\*|\*/|#\s?\w+\(|--\s|<!--)|^</?[A-Za-z][\w-]*(?:\s[^>]{0,200})?/?>"
    r"|^\s*[\"']?[\w-]+[\"']?\s?:\s?[\"'\[{\d].{0,200},$|^@\w[\w.]*(?:\(.*\))?$"
    r"|^\s*[}\])]+[;,)]*$|\w\(\)|\w\[[\w\"']+\]|->\w|::\w|^\$ \w|^>>> "
)
_PROSE = re.compile(r"^(?:[-*•]|\d{1,2}[.)])\s|[a-zäöüß]{2,}[,]? [a-zäöüß]{2,} [a-zäöüß]{2,} [a-zäöüß]{2,}[^;{}()=]*$")

_FILE_NAME = re.compile(
    r"(?i)(?<![\w/@.-])[\w()+-][\w()+.-]{0,80}?\.(?:pdf|docx?|xlsx?|pptx?"
    "|od[tsp]|rtf|csv|tsv|eml|msg|vcf|ics|pst|mdb|accdb|sqlite|db|bak"
    "|jpe?g|png|heic|tiff?|gif|mp[34]|wav|m4a|mov|zip|7z|rar|tar|tgz|gz"
    r"|key|pem|p12|pfx|kdbx|env|log|sql|ipynb)(?![\w/])"
)
_FILE_PATH = re.compile(
    r"(?:(?<![\w:/.])(?:/(?:home|Users|root|mnt|media|srv|var|etc|opt|data"
    r"|private|Volumes)/[^\s\"'<>|]{1,200}|~/[^\s\"'<>|]{2,200})"
    r"|(?<!\w)[A-Za-z]:\\[^\s\"'<>|?*]{2,200}|(?<![\w\\])\\\\[\w.-]{2,60}\\[^\s\"'<>"
    r"|?*]{1,200}|file://[^\s\"'<>]{2,200})"
)
_DATA_URL = re.compile(r"data:(?P<media>[\w.+-]{1,60}/[\w.+-]{1,80})?(?:;[\w=.-]{1,60}){0,4};base64,")

# Keys under which the wire formats carry attachments, and the fields of theirs that hold them.
_CARRIERS = frozenset(
    {"image_url", "input_audio", "file", "image", "document", "video_url", "audio", "source", "input_image"}
)
_CARRIED = frozenset({"url", "data", "file_data", "file_id", "image_url", "video_url"})
_NAMES = frozenset({"filename", "file_name", "title"})
_TEXT_MEDIA = re.compile(r"(?i)^(?:text/.*|application/(?:json|xml|csv|x-yaml|yaml|javascript))$")


class Code:
    """Finds code, attachments and file names."""

    name = "code"
    version = "1"
    kinds: frozenset[Kind] = frozenset({"code", "file"})

    async def find(self, parts: Sequence[Part]) -> list[Finding]:
        """The code and the files in `parts`.

        Raises:
            Unclear: there is an attachment that nobody can look into.
        """
        return await in_thread(lambda stop: self._find(parts, stop))

    def _find(self, parts: Sequence[Part], stop: Event) -> list[Finding]:
        found: list[Finding] = []
        is_opaque = False
        for index, part in enumerate(parts):
            if stop.is_set():
                raise Stopped
            attachment = _attachment(part)
            if attachment is not None:
                found.append(Finding(*attachment, index, 0, len(part.text), self.name, 1.0))
                is_opaque |= attachment[1] == "ATTACHMENT" and is_opaque_content(part.text)
                continue
            for match in _looked(part.text, stop):
                found.append(Finding(match.kind, match.type, index, match.start, match.end, self.name, match.score))
                is_opaque |= match.type == "ATTACHMENT" and is_opaque_content(part.text[match.start : match.end])
        if is_opaque:
            raise Unclear("An attachment is in a form that nobody here can look into.", found)
        return found


def look(text: str) -> Iterator[Match]:
    """Code, `data:` URLs and file names in one piece of text."""
    for match in _FENCED.finditer(text):
        if match["it"].strip():
            yield Match("code", "CODE", match.start(), match.end(), 1.0)
    yield from _source(text)
    for match in _DATA_URL.finditer(text):
        yield Match("file", "ATTACHMENT", match.start(), match.end(), 1.0)
    for pattern, type_ in ((_FILE_PATH, "FILE_NAME"), (_FILE_NAME, "FILE_NAME")):
        for match in pattern.finditer(text):
            yield Match("file", type_, match.start(), match.end(), 0.7)


def is_opaque_content(text: str) -> bool:
    """Whether an attachment's content stands in `text` in a form in which no detector can read it."""
    match = _DATA_URL.match(text)
    if match is not None:
        return match["media"] is None or _TEXT_MEDIA.match(match["media"]) is None
    return re.match(r"(?i)https?://|file-[\w-]+$", text) is None


def _attachment(part: Part) -> tuple[Kind, str] | None:
    """What `part` is by its place in a message; content that a tool call is about is no attachment."""
    if part.is_key or not part.path or part.path[0] not in ("messages", "system") or "content" not in part.path:
        return None
    key, above = part.path[-1], set(part.path[:-1])
    if "input" in above or "tool_calls" in above:
        return None
    if key in _NAMES and above & _CARRIERS | above & {"content"}:
        return "file", "FILE_NAME"
    if key in _CARRIED and (above & _CARRIERS or key in _CARRIERS):
        return "file", "ATTACHMENT"
    return None


def _looked(text: str, stop: Event) -> Iterator[Match]:
    seen: set[Match] = set()
    for offset, piece in pieces(text):
        if stop.is_set():
            raise Stopped
        for match in look(piece):
            moved = Match(match.kind, match.type, offset + match.start, offset + match.end, match.score)
            if moved not in seen:
                seen.add(moved)
                yield moved


def _source(text: str) -> Iterator[Match]:
    """Runs of lines that are source, without fences."""
    lines = list(_lines(text))
    if not lines:
        return
    marks = [_is_code(line) for _, line in lines]
    if len(lines) < LINES_MIN and all(marks) and len(text.strip()) >= SNIPPET_MIN:
        yield Match("code", "CODE", lines[0][0], lines[-1][0] + len(lines[-1][1]), 0.6)
        return
    first = last = None
    count = 0
    for at, is_code in enumerate([*marks, *[False] * (LINES_BETWEEN + 1)]):
        if is_code:
            first = at if first is None else first
            last = at
            count += 1
        elif first is not None and last is not None and at - last > LINES_BETWEEN:
            plainly = any(_PLAINLY.match(line.strip()) for _, line in lines[first : last + 1])
            if count >= LINES_MIN or plainly:
                yield Match(
                    "code", "CODE", lines[first][0], lines[last][0] + len(lines[last][1]), 0.9 if plainly else 0.7
                )
            first = last = None
            count = 0


def _lines(text: str) -> Iterator[tuple[int, str]]:
    at = 0
    for line in text.splitlines(keepends=True):
        if line.strip():
            yield at, line.rstrip("\r\n")[:500]
        at += len(line)


def _is_code(line: str) -> bool:
    stripped = line.strip()
    if _PLAINLY.match(stripped):
        return True
    return _LINE.search(stripped) is not None and _PROSE.search(stripped) is None
