r"""The short answer within an answer: a choice, a number, yes or no, or a few words, as a value that can be compared.

Where it is looked for, first hit counts, and of several lines the last:

    marked   "Answer: …", "**Final answer:** …", "The answer is …", "\boxed{…}"
    whole    the whole text, where that is one short line
    last     the last line, where it is nothing but a letter, a number, yes or no
    first    a text that begins with "Yes" or "No"

An answer that is a JSON object has it in its field `answer`, or one of a few like it.

Code blocks are not looked into, so that a program's output is not taken for an answer. An essay has none of these, and
then there is no value: nobody counts votes on it. What is compared is exact; 3.14 and 3.1416 are two answers.

A unit is one that UNITS knows, or a sign (°C, m/s, $, W): of two different ones nobody says that they are the same. Any
other word behind a number ("8 legs", "8 of them") says what was counted, and as everybody was asked the same, nothing.
"""

import re
from fractions import Fraction
from typing import Literal

import msgspec
from msgspec import Struct

Kind = Literal["choice", "number", "yesno", "words"]

LINE_CHARACTERS_MAX = 120
# A short answer and the reason behind it.
VALUE_CHARACTERS_MAX = 1_000
WORDS_MAX = 8
LOOSE_WORDS_MAX = 4
FEW_WORDS_MAX = 3
# Of writing without spaces between words.
FEW_SIGNS_MAX = 8
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")
NUMBER_DIGITS_MAX = 60
EXPONENT_MAX = 100

FENCE = re.compile(r"^[ \t]*(```+|~~~+).*?(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
THOUGHT = re.compile(r"\s*<(think|thinking)>")
# Where an answer in JSON has its short answer.
KEYS = ("answer", "final_answer", "choice", "result", "label")
JSON_CHARACTERS_MAX = 4_000
BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
MARKED = re.compile(
    r"(?im)(?:^[ \t>*_#-]*(?:choice|option)|\b(?:answer|(?:correct|right|best)\s+(?:choice|option)))\b[\s*_]*"
    r"(?P<mark>[:=]|is\b)[\s*_:]*(?P<value>\S[^\n]*)$"
)
# What may follow an answer on its line.
REASON = re.compile(r"(?<=\S)(?:,?\s+(?:because|since|as)\b|\.\s+(?=[A-Z])|\s+\((?![A-Za-z]\)))")
CHOICE = re.compile(r"(?i:(?:option|choice)\s+)?\(?(?P<letter>[A-Za-z])(?:\)|\.|:|\)\.)?(?P<rest>\s.*)?")
YES_NO = re.compile(r"(?i)(?P<word>yes|no|true|false|correct|incorrect)(?=[\s.,;:!]|\Z)")
NUMBER = re.compile(
    r"(?P<sign>[-+\u2212]?)\s*(?P<currency>[$€£¥]?)\s*"
    r"(?P<value>\d+\s*/\s*\d+|(?:\d{1,3}(?:[ \u00a0\u202f']\d{3})+(?:[.,]\d+)?|\d[\d.,]*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"\s*(?P<unit>%|°\s?[CF]|[A-Za-zµμ²³/€$£¥]+[²³]?)?(?P<rest>.*)"
)

_TIME, _LENGTH, _MASS, _VOLUME, _BYTES = "time", "length", "mass", "volume", "bytes"
# What a unit measures, and how much of the smallest one it is.
UNITS: dict[str, tuple[str, Fraction]] = {
    "%": ("ratio", Fraction(1, 100)),
    "percent": ("ratio", Fraction(1, 100)),
    **{name: (_LENGTH, Fraction(1)) for name in ("mm", "millimetres", "millimeters")},
    **{name: (_LENGTH, Fraction(10)) for name in ("cm", "centimetres", "centimeters")},
    **{name: (_LENGTH, Fraction(1000)) for name in ("m", "metre", "meter", "metres", "meters")},
    **{name: (_LENGTH, Fraction(1_000_000)) for name in ("km", "kilometres", "kilometers")},
    **{name: (_MASS, Fraction(1)) for name in ("mg", "milligrams")},
    **{name: (_MASS, Fraction(1000)) for name in ("g", "gram", "grams")},
    **{name: (_MASS, Fraction(1_000_000)) for name in ("kg", "kilogram", "kilograms")},
    **{name: (_TIME, Fraction(1)) for name in ("ms", "milliseconds")},
    **{name: (_TIME, Fraction(1000)) for name in ("s", "sec", "second", "seconds")},
    **{name: (_TIME, Fraction(60_000)) for name in ("min", "minute", "minutes")},
    **{name: (_TIME, Fraction(3_600_000)) for name in ("h", "hr", "hour", "hours")},
    **{name: (_TIME, Fraction(86_400_000)) for name in ("d", "day", "days")},
    **{name: (_VOLUME, Fraction(1)) for name in ("ml", "millilitres", "milliliters")},
    **{name: (_VOLUME, Fraction(1000)) for name in ("l", "litre", "liter", "litres", "liters")},
    **{name: (_BYTES, Fraction(1000**power)) for power, name in enumerate(("bytes", "kb", "mb", "gb", "tb"))},
    **{name: (_BYTES, Fraction(1024**power)) for power, name in enumerate(("kib", "mib", "gib", "tib"), start=1)},
}
# A shorter word with nothing behind it is a sign: W, Hz, am.
WORD_LETTERS_LEAST = 3
DIGITS = re.compile(r"\d[\d.,]*")
ONE_NUMBER = re.compile(r"(?<!\S)[-+\u2212]?[$€£¥]?\d")
TRUE = frozenset({"yes", "true", "correct"})


class Value(Struct, frozen=True, kw_only=True):
    """A short answer that can be compared.

    Attributes:
        text: as it is shown.
        number: as it was written; None where it is no number.
        measure: what its unit measures, with `base` in the smallest unit of that, or the sign; None without a unit.
    """

    kind: Kind
    text: str
    number: Fraction | None = None
    measure: str | None = None
    base: Fraction | None = None

    def is_same(self, other: "Value") -> bool:
        """Whether both say the same. Symmetric; a number without a unit is the same as one with any."""
        if self.kind != other.kind:
            return False
        if self.kind != "number":
            return self.text == other.text
        if self.measure == other.measure:
            return self.base == other.base
        if self.measure is not None and other.measure is not None:
            return False
        bare, measured = (self, other) if self.measure is None else (other, self)
        # Half of it is 50 %, 50 or 0.5, whoever says it.
        return bare.number == measured.number or (measured.measure == "ratio" and bare.number == measured.base)


def spoken(text: str) -> str:
    """A text without the thoughts that some engines leave in it."""
    found = THOUGHT.match(text)
    end = f"</{found[1]}>" if found else ""
    return text.partition(end)[2] if end and end in text else text


def extract(text: str) -> Value | None:
    """The short answer of a text; None where it has none."""
    prose = FENCE.sub("\n", spoken(text)).strip()
    if not prose:
        return None
    if prose.startswith("{") and len(prose) <= JSON_CHARACTERS_MAX:
        return _of_json(prose)
    boxed = BOXED.findall(prose)
    if boxed:
        return _read(boxed[-1], is_marked=True)
    marked = list(MARKED.finditer(prose))
    if marked:
        value = _read(marked[-1]["value"], is_marked=True)
        is_loose = value is not None and value.kind == "words" and marked[-1]["mark"] not in {":", "="}
        # "The answer is a matter of taste, if you ask me."
        return None if is_loose and value is not None and len(value.text.split()) > LOOSE_WORDS_MAX else value
    lines = [line for line in prose.splitlines() if line.strip()]
    if len(lines) == 1 and len(prose) <= LINE_CHARACTERS_MAX:
        value = _read(prose, is_marked=False)
    else:
        value = _read(lines[-1], is_marked=False, is_alone=True)
    return value or _yes_no(_bare(prose[:LINE_CHARACTERS_MAX]))


def only_number(text: str) -> Value | None:
    """The number of a text that has one and no other; what stands before it does not matter."""
    prose = FENCE.sub("\n", spoken(text))
    found = ONE_NUMBER.search(prose)
    if found is None or len(DIGITS.findall(prose)) != 1:
        return None
    return _number(_bare(prose[found.start() :].splitlines()[0][:LINE_CHARACTERS_MAX]), is_marked=True)


def _of_json(text: str) -> Value | None:
    try:
        fields = msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        return None
    said = [fields[key] for key in KEYS if isinstance(fields.get(key), str | int | float)]
    return _read(str(said[0]), is_marked=True) if said else None


def _bare(text: str) -> str:
    """Without what only decorates: emphasis, quotes, dollar signs of formulas, the full stop."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)
    text = text.replace("\\%", "%").replace("\\,", "").replace("\\$", "$").replace("\\(", "").replace("\\)", "")
    text = re.sub(r"[*_`\"“”]+", "", text).strip()
    if len(text) > 1 and text.startswith("$") and text.endswith("$"):
        text = text.strip("$").strip()
    return text.rstrip(".!;, ").strip()


def _read(text: str, *, is_marked: bool, is_alone: bool = False) -> Value | None:
    text = _bare(text)
    if is_marked:
        text = REASON.split(text[:VALUE_CHARACTERS_MAX], maxsplit=1)[0].strip() or text
    if not text or len(text) > LINE_CHARACTERS_MAX:
        return None
    # "x = 42": what it equals.
    text = re.sub(r"^[A-Za-z]\w{0,15}\s*=\s*", "", text).rstrip(".!;, ")
    return (
        _choice(text, is_marked=is_marked)
        or (_yes_no(text) if is_marked or not is_alone or len(text.split()) == 1 else None)
        or _number(text, is_marked=is_marked)
        or (_words(text) if is_marked or _is_few(text, is_alone=is_alone) else None)
    )


def _is_few(text: str, *, is_alone: bool) -> bool:
    """Whether a whole text is a few words and no sentence or heading."""
    words = text.split()
    is_short = len(words) <= FEW_WORDS_MAX and not (UNSPACED.search(text) and len(text) > FEW_SIGNS_MAX)
    return not is_alone and is_short and ":" not in text


def _choice(text: str, *, is_marked: bool) -> Value | None:
    found = CHOICE.fullmatch(text)
    if found is None:
        return None
    mark = text[: found.end("letter") + 1]
    is_bracketed = mark[-1] in ").:" or mark.startswith("(")
    # "A dog" begins with a letter, too.
    if found["rest"] and not is_bracketed:
        return None
    if not found["letter"].isupper() and not is_bracketed and not is_marked:
        return None
    return Value(kind="choice", text=found["letter"].upper())


def _yes_no(text: str) -> Value | None:
    found = YES_NO.match(text)
    if found is None:
        return None
    return Value(kind="yesno", text="yes" if found["word"].lower() in TRUE else "no")


def _number(text: str, *, is_marked: bool) -> Value | None:
    text = re.sub(r"^(?i:about|approximately|approx\.?|roughly|around|exactly|[≈~=])\s*", "", text)
    found = NUMBER.fullmatch(text)
    if found is None or (found["rest"].strip(" .") and not is_marked):
        return None
    # "3 of the 4" or "12:30" is no number that could be compared.
    if re.match(r"\s*[\d:+*^×x-]", found["rest"]) or re.search(r"\d", found["rest"]):
        return None
    number = _fraction(found["value"])
    if number is None:
        return None
    number = -number if found["sign"] in {"-", "\u2212"} else number
    measure, size = _measure(found["currency"] or found["unit"] or "", is_last=not found["rest"].strip(" ."))
    return Value(kind="number", text=text, number=number, measure=measure, base=number * size)


def _measure(unit: str, *, is_last: bool) -> tuple[str | None, Fraction]:
    """What a unit measures, and how much of the smallest one it is."""
    name = "".join(unit.split())
    if not name:
        return None, Fraction(1)
    known = UNITS.get(name.lower()) or UNITS.get(f"{name.lower()}s")
    if known is not None:
        return known
    is_sign = not name.isalpha() or (is_last and len(name) < WORD_LETTERS_LEAST)
    return name if is_sign else None, Fraction(1)


def _fraction(written: str) -> Fraction | None:
    """An exact number: 1,234.50, 1 234, 3,5, 2/4, 1e-3; None where it cannot be one."""
    written = re.sub(r"[\s\u00a0\u202f']", "", written).rstrip(".,")
    mantissa, _, exponent = written.lower().partition("e")
    if len(written) > NUMBER_DIGITS_MAX or (exponent and abs(int(exponent)) > EXPONENT_MAX):
        return None
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", mantissa):
        mantissa = mantissa.replace(",", "")
    elif re.fullmatch(r"\d{1,3}(\.\d{3}){2,}(,\d+)?|\d{1,3}\.\d{3},\d+", mantissa):
        mantissa = mantissa.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d+,\d+", mantissa):
        mantissa = mantissa.replace(",", ".")
    try:
        return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)
    except (ValueError, ZeroDivisionError):
        return None


def _words(text: str) -> Value | None:
    # Signs stay: C is not C++, and x < 5 not x > 5.
    words = re.findall(r"[^\s,;!?()'\"]+", text.casefold())
    words = [word for word in words if word not in {"the", "a", "an"}]
    return Value(kind="words", text=" ".join(words)) if 0 < len(words) <= WORDS_MAX else None
