"""Phrasings beyond what was written: the same question as other people would type it.

What is changed never changes the meaning: a polite frame around the question, a word of the house for another, words
that carry nothing left out, typing errors. All by chance that is handed in.
"""

import re
from functools import cache
from random import Random

from tools.models import grammar
from tools.models.texts import Question, macros

# How often each change is made to one phrasing.
STEM, FRAME, SYNONYM, DROP, TYPO, JUMBLE = 0.2, 0.25, 0.18, 0.2, 0.12, 0.02
# Lists of macros.txt that a question may begin with and be understood without.
STEMS = ("how", "where", "what", "whats", "can")
# How often a word that nobody knows, or that belongs elsewhere, comes into a question; for those about this server it
# is what unseen words of real people look like, and must not lead away from the words that are known.
INVENTED, STRAY = 0.35, 0.22
STRAYS = ("topic", "thing", "animal", "food", "city", "country", "famous", "work")
# Questions outside this server that hold its words; without the word that tells them apart they would be ours.
TRAPS = "else.near"
SYLLABLES = (
    "ba",
    "ke",
    "lo",
    "mi",
    "nu",
    "ra",
    "se",
    "ti",
    "vo",
    "wu",
    "zan",
    "fel",
    "gor",
    "hib",
    "jux",
    "kal",
    "mon",
    "per",
    "quo",
    "ris",
    "sta",
    "tru",
    "ul",
    "ver",
    "win",
    "xan",
    "yor",
    "zep",
)
TYPOS_MAX = 2
WORD = re.compile(r"[a-z]+")
NEIGHBOURS = {
    "a": "sqz", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "w", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
# Words that may be left out without changing what is meant.
LIGHT = frozenset(
    {
        "a",
        "an",
        "the",
        "do",
        "does",
        "is",
        "are",
        "i",
        "my",
        "to",
        "of",
        "for",
        "can",
        "please",
        "this",
        "that",
        "it",
        "on",
        "in",
        "me",
        "you",
        "exactly",
        "really",
        "actually",
        "just",
    }
)
# Words of one meaning here.
SYNONYMS = (
    "server box machine",
    "box machine computer",
    "create make generate",
    "delete remove erase",
    "change modify adjust alter switch",
    "show display list",
    "find locate discover",
    "user person member",
    "users people members folks",
    "command cmd",
    "default standard preset",
    "setting option",
    "settings options configuration",
    "limit cap ceiling restriction maximum",
    "limits caps restrictions",
    "answer reply response",
    "answers replies responses",
    "answered replied served",
    "question query",
    "questions queries",
    "begin start",
    "start launch boot run",
    "started launched booted",
    "starts launches begins",
    "stop end quit halt",
    "stops ends quits",
    "stopped ended halted",
    "install setup",
    "error message failure",
    "wait queue",
    "waiting queued",
    "waits queues",
    "somebody someone",
    "allowed permitted able",
    "maximum max highest upper",
    "minimum min least lowest",
    "big large huge",
    "bigger larger",
    "small little tiny",
    "quick fast speedy",
    "quickly fast",
    "slow sluggish slowly",
    "explain describe",
    "need require",
    "needed required necessary",
    "use utilise employ",
    "used employed",
    "happens occurs",
    "program script app client tool",
    "programs scripts apps clients tools",
    "colleague coworker workmate",
    "flatmate housemate roommate",
    "friend buddy mate pal",
    "brother sister son daughter",
    "password passphrase",
    "account login user",
    "log sign",
    "model llm",
    "models llms",
    "picture photo image",
    "pictures photos images",
    "file document",
    "files documents",
    "folder directory",
    "folders directories",
    "address url",
    "link url",
    "page site screen website",
    "browser firefox chrome",
    "phone mobile smartphone iphone",
    "laptop notebook",
    "tablet ipad",
    "computer pc",
    "gpu graphics videocard geforce rtx",
    "memory ram",
    "disk drive ssd",
    "network lan wifi",
    "internet web",
    "manual handbook docs documentation",
    "docs documentation",
    "version release",
    "update upgrade",
    "new fresh",
    "newest latest current",
    "old former previous",
    "broken defective faulty",
    "fails breaks crashes",
    "failed broke crashed",
    "fail break crash",
    "dies crashes",
    "died crashed",
    "crash die fail",
    "down offline unavailable dead",
    "away unreachable gone",
    "reach access open",
    "reachable accessible",
    "connect attach hook plug link",
    "add register append",
    "invite enrol",
    "give grant hand assign",
    "get obtain receive fetch",
    "take grab pick",
    "choose select pick",
    "put place store",
    "kept stored saved",
    "stored saved kept",
    "keep store save",
    "saved stored remembered",
    "read see",
    "see view look",
    "check verify test inspect",
    "test try",
    "measure benchmark",
    "speed pace performance",
    "share part portion",
    "shared split divided distributed",
    "fair just even",
    "lost missing gone",
    "forgot lost forgotten",
    "expire end lapse",
    "expired lapsed invalid",
    "valid good usable",
    "revoke cancel withdraw invalidate",
    "leaked stolen exposed published compromised",
    "secret private confidential",
    "logged recorded written",
    "limitless unlimited",
    "everybody everyone all",
    "everything all",
    "nobody noone",
    "nothing none",
    "several many multiple",
    "two both pair",
    "together simultaneously",
    "parallel simultaneous concurrent",
    "busy occupied taken",
    "full overloaded",
    "empty blank white",
    "blank white empty",
    "free available open",
    "taken occupied used",
    "port tcp-port",
    "turn place position",
    "position place spot",
    "ahead before",
    "long lengthy",
    "short brief",
    "longer extended",
    "cut truncated chopped",
    "cost price charge",
    "costs prices charges",
    "expensive dear costly",
    "pay spend",
    "cheap inexpensive",
    "day daily",
    "month monthly",
    "left remaining",
    "remains left",
    "reset renewed restarted",
    "wins counts applies prevails",
    "rule regulation",
    "rules regulations",
    "role group",
    "engine backend",
    "engines backends",
    "supported possible compatible",
    "support know handle",
    "temperature heat",
    "card gpu",
    "graphics video",
    "cards gpus",
    "environment env",
    "variable var",
    "variables vars",
    "configure set",
    "config configuration",
    "wrong incorrect bad invalid",
    "correct right proper",
    "problem trouble issue",
    "fix repair mend solve",
    "diagnose examine",
    "backup copy",
    "restore recover",
    "money euros dollars",
    "conversation chat",
    "conversations chats",
    "export download",
    "kubernetes k8s k3s",
    "provider vendor",
    "meaning sense definition",
    "mean signify",
    "word term",
    "useful helpful handy",
    "better superior",
    "good great nice",
    "advantage benefit point",
    "important vital",
    "guest visitor",
    "boss chief manager",
    "children kids",
    "wife husband",
    "home house",
    "company firm office business",
    "team group",
    "thing stuff",
    "example sample",
    "instructions guide steps tutorial",
    "reason cause",
    "hello hi hey",
    "thanks thx",
)
SAME = {word: set[str]() for row in SYNONYMS for word in row.split()}
for row in SYNONYMS:
    for word in row.split():
        SAME[word] |= set(row.split()) - {word}
SAME_IN_ORDER = {word: sorted(others) for word, others in SAME.items()}


def speak(question: Question, chance: Random) -> str:
    """One phrasing, in lower case, as the chat template will make it."""
    text = grammar.speak(chance.choice(question.patterns), chance).lower()
    if not question.is_anything_else:
        text = _with_synonyms(text, chance)
        if chance.random() < STRAY:
            text = _with_a_stray_word(text, chance)
    elif question.name != TRAPS and chance.random() < INVENTED:
        text = _with_an_invention(text, chance)
    if chance.random() < STEM:
        text = _without_stem(text, chance)
    if chance.random() < DROP:
        text = _without_light_words(text, chance)
    if chance.random() < FRAME:
        text = _framed(text, chance)
    if chance.random() < TYPO:
        for _ in range(chance.randint(1, TYPOS_MAX)):
            text = _mistyped(text, chance)
    if chance.random() < JUMBLE:
        words = text.split()
        at = chance.randrange(len(words))
        text = " ".join(words[at:] + words[:at])
    return _ended(text, chance)


def _with_synonyms(text: str, chance: Random) -> str:
    words = text.split(" ")
    return " ".join(
        chance.choice(SAME_IN_ORDER[word]) if word in SAME_IN_ORDER and chance.random() < SYNONYM else word
        for word in words
    )


def _with_a_stray_word(text: str, chance: Random) -> str:
    """A word that says nothing here, beside the others or, where enough are left, in place of one."""
    words = text.split(" ")
    stray = _invented(chance)
    if chance.random() < 0.5:  # noqa: PLR2004
        stray = chance.choice(macros()[chance.choice(STRAYS)].split("|")).split()[-1]
    at = chance.randrange(len(words) + 1)
    words[at : at + (len(words) > 4 and chance.random() < 0.5)] = [stray]  # noqa: PLR2004
    return " ".join(words)


def _invented(chance: Random) -> str:
    return "".join(chance.choices(SYLLABLES, k=chance.randint(1, 3)))


def _with_an_invention(text: str, chance: Random) -> str:
    words = text.split(" ")
    words[chance.randrange(len(words))] = _invented(chance)
    return " ".join(words)


WHAT_STEMS = frozenset(way.lower() for name in ("what", "whats") for way in macros()[name].split("|"))


@cache
def _stems() -> tuple[str, ...]:
    """Longest first."""
    all_ = {way.lower() for name in STEMS for way in macros()[name].split("|")}
    return tuple(sorted(all_, key=lambda way: (-len(way), way)))


def _without_stem(text: str, chance: Random) -> str:
    """The matter without its beginning, or with the beginning turned into an end."""
    stem = next((each for each in _stems() if text.startswith(f"{each} ")), "")
    rest = text[len(stem) :].strip()
    if not stem or not rest:
        return text
    if stem in WHAT_STEMS and chance.random() < 0.6:  # noqa: PLR2004
        return chance.choice(
            [f"{rest}, what is that", f"{rest}, what does it mean", f"what does {rest} mean", f"what {rest} is",
             f"the word {rest}", f"what do you call {rest}", f"{rest}: explain", f"what exactly does {rest} stand for",
             f"{rest} means what", f"what should i know about {rest}"]
        )  # fmt: skip
    if stem not in WHAT_STEMS and chance.random() < 0.4:  # noqa: PLR2004
        return chance.choice(
            [f"{rest}, how", f"{rest}, how does that work", f"{rest}, is that possible", f"{rest}, what do i do"]
        )
    return rest


def _without_light_words(text: str, chance: Random) -> str:
    words = text.split(" ")
    kept = [word for word in words if word not in LIGHT or chance.random() < 0.5]  # noqa: PLR2004
    return " ".join(kept) or text


def _framed(text: str, chance: Random) -> str:
    before, after = (grammar.parse(f"[{name}]", macros()) for name in ("before", "after"))
    way = chance.random()
    head = grammar.speak(before, chance) if way < 0.7 else ""  # noqa: PLR2004
    tail = grammar.speak(after, chance) if way > 0.5 else ""  # noqa: PLR2004
    return grammar.tidy(f"{head} {text} {tail}")


def _mistyped(text: str, chance: Random) -> str:
    """One error in one word of four letters or more: doubled, lost, swapped, or the key beside it."""
    words = [found for found in WORD.finditer(text) if len(found[0]) > 3]  # noqa: PLR2004
    if not words:
        return text
    word = chance.choice(words)
    at = chance.randrange(word.start(), word.end() - 1)
    here, following = text[at], text[at + 1]
    wrong = chance.choice(
        [here * 2 + following, following, following + here, chance.choice(NEIGHBOURS[here]) + following]
    )
    return text[:at] + wrong + text[at + 2 :]


def _ended(text: str, chance: Random) -> str:
    text = text.rstrip("?.! ") or text
    if chance.random() < 0.08:  # noqa: PLR2004
        text = text.replace("'", "")
    return text + chance.choices(["?", "", ".", " ?", "??", "!"], [55, 33, 6, 2, 2, 2])[0]
