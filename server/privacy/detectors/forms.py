"""Personal data that can be told by its form or by the words before it, in English and German.

A name has no form. What can be told is a name that is announced: by a title ("Frau Dr. Meier"), by a sentence ("my name
is"), at the top or the end of a letter, in a field. Everything else about people is left to the model tier.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from server.privacy.detectors.looking import Match

# How far before and after a match a word counts as being about it.
NEAR_BEFORE = 80
NEAR_AFTER = 40


@dataclass(frozen=True, slots=True)
class Form:
    """A type of personal data and how it is written.

    Attributes:
        type: its name in findings.
        pattern: matches it; the group `it`, where there is one, is the datum, the rest is how it is announced.
        score: how sure a match is.
        check: says of the matched text whether it is one after all.
        near: must match close by.
    """

    type: str
    pattern: re.Pattern[str]
    score: float
    check: Callable[[str], bool] | None = None
    near: re.Pattern[str] | None = None


def found(form: Form, text: str) -> Iterator[Match]:
    """Where `form` occurs in `text`."""
    group = "it" if "it" in form.pattern.groupindex else 0
    for match in form.pattern.finditer(text):
        start, end = match.span(group)
        if start == end or (form.check is not None and not form.check(match[group])):
            continue
        if form.near is None or is_near(form.near, text, start, end):
            yield Match("personal", form.type, start, end, form.score)


def is_near(words: re.Pattern[str], text: str, start: int, end: int) -> bool:
    """Whether one of `words` stands close to `text[start:end]`."""
    before, after = text[max(0, start - NEAR_BEFORE) : start], text[end : end + NEAR_AFTER]
    return words.search(before) is not None or words.search(after) is not None


def has_luhn(number: str) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1, annex B)."""
    digits = [int(char) for char in number if char.isdecimal()]
    doubled = [digit if at % 2 == 0 else digit * 2 - 9 * (digit > 4) for at, digit in enumerate(reversed(digits))]  # noqa: PLR2004 - 2 x 5 has two digits
    return sum(doubled) % 10 == 0


def has_mod97(number: str) -> bool:
    """Whether the digits after the country check the rest (ISO 7064, MOD 97-10, as in ISO 13616)."""
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1


def _is_address(text: str) -> bool:
    """An IP address of a machine somewhere; loopback and "any" are nobody's."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _is_age(text: str) -> bool:
    return int(text) <= 120  # noqa: PLR2004 - years that somebody may live


# Capitalised words of a name; particles between them; no more than four.
_WORD = r"[A-ZÄÖÜÁÉÍÓÚŠŽČŘŁĐÅØÆÀÈÌÒÙÂÊÎÔÛÇÑŐŰŞĞ][\w'’-]{1,30}"
_PARTICLE = r"(?:von|van|de|der|den|zu|la|le|di|da|del|bin|al|el|ten|ter|Mac|Mc|O')"
_NAME = rf"{_WORD}(?:[ \t](?:[A-Z]\.[ \t])?(?:{_PARTICLE}[ \t]){{0,2}}{_WORD}){{0,3}}"
_FULL_NAME = rf"{_WORD}(?:[ \t](?:[A-Z]\.[ \t])?(?:{_PARTICLE}[ \t]){{0,2}}{_WORD}){{1,3}}"
_TITLE = (
    "(?:Mrs?|Ms|Mx|Miss|Mister|Dr|Prof|Professor|Doktor|Herrn?|Frau|Fräulein"
    "|Mme|Mlle|Monsieur|Madame|Señora?|Sra?|Sir|Lady|Lord"
    r"|Rev|Dipl\.-(?:Ing|Kfm)|Ing|Mag|Hr|Fr|RA|Nurse|Officer|Judge|Sister|Uncle|Aunt|Onkel|Tante)"
)
_NOBODY = re.compile(
    "(?i)^(?:sir|madam|team|all|alle|everyone|everybody|customers?|kunden?"
    "|kundin|user|nutzer|support|hiring|damen|herren|folks?"
    r"|friends?|freunde|ladies|gentlemen|colleagues?|kolleg\w+|assistant"
    r"|chat\w*|gpt|claude|llm|ai|bot|community|world|welt|there"
    "|zusammen|leute|reader|leser|diary|tagebuch|god|gott|lord|santa|future"
    "|editor|professor|doctor|manager|recruiter|committee"
    r"|members?|mitglieder|parents|eltern|students?|is|not|der|die|das|the|a|an)\b"
)


def _is_somebody(text: str) -> bool:
    return _NOBODY.match(text) is None


_TOP_DOMAINS = (
    r"(?:com|net|org|edu|gov|info|biz|de|at|ch|eu|uk|co\.uk|fr|it|es|nl|be"
    r"|dk|se|no|fi|pl|cz|hu|pt|ie|us|ca|com\.au|com\.br|ru|ua"
    r"|in|jp|cn|io|dev|app|me|tv|cloud|online|shop|site|xyz)"
)
_MONTHS = (
    r"(?:jan(?:uary|uar)?|feb(?:ruary|ruar)?|mar(?:ch)?|märz|apr(?:il)?|may|mai|june?|juni?|july?|juli?|aug(?:ust)?"
    r"|sep(?:t(?:ember)?)?|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?)"
)
_DATE = (
    rf"(?:\d{{1,2}}[./-]\s?\d{{1,2}}[./-]\s?\d{{2,4}}|\d{{4}}-\d{{2}}-\d{{2}}"
    rf"|\d{{1,2}}(?:st|nd|rd|th|\.)?\s(?:of\s)?{_MONTHS},?\s\d{{4}}"
    rf"|{_MONTHS}\s\d{{1,2}}(?:st|nd|rd|th)?,?\s\d{{4}}|(?:19|20)\d{{2}})"
)
# Names of fields that hold a person's name.
PERSON_FIELD = (
    "(?:(?:first|last|full|given|family|sur|maiden|middle|user|customer"
    "|client|patient|employee|contact|recipient|sender|account[_ -]?"
    "holder|card[_ -]?holder|display)[_ -]?name|vorname|nachname|familienname"
    "|geburtsname|surname|kunde|kundin|patientin|mitarbeiter(?:in)?"
    r"|ansprechpartner(?:in)?|empfänger(?:in)?|absender(?:in)?|bewerber(?:in)?)"
)

FORMS = (
    Form(
        "EMAIL",
        re.compile(r"(?<![\w.%+-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_][\w-]{1,62}(?![\w-])"),
        1.0,
    ),
    Form("EMAIL", re.compile(r"(?<![\w.%+-])[\w.+-]{2,64}@(?:localhost|[a-z][a-z0-9-]{2,62})(?![\w.-])"), 0.5),
    Form("URL", re.compile(r"(?i)(?<![a-z0-9])(?:https?|ftp)://[^\s<>\"'`)\]}]{3,500}"), 0.6),
    Form(
        "URL",
        re.compile(
            rf"(?i)(?<![\w@.-])(?:www\.[\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{0,5}}|[a-z0-9-]{{2,63}})\."
            rf"{_TOP_DOMAINS}(?![\w.-])(?:/[^\s<>\"')\]]{{0,300}})?(?!\()"
        ),
        0.5,
    ),
    Form("IP_ADDRESS", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"), 0.7, _is_address),
    Form("IP_ADDRESS", re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"), 0.7, _is_address),
    Form("MAC_ADDRESS", re.compile(r"(?<![\w:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:-])"), 0.9),
    Form(
        "CREDIT_CARD", re.compile(r"(?<![\w.,-])(?:[2-6]|1800|2131)(?:[ -]?\d){11,18}(?![\w]|[.,-]\d)"), 0.9, has_luhn
    ),
    Form(
        "CREDIT_CARD",
        re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){11,18}(?![\w]|[.,-]\d)"),
        0.6,
        None,
        re.compile(r"(?i)(?:credit|debit|visa|master|amex|kredit|karten|\bcard|karte\b)"),
    ),
    Form("IBAN", re.compile(r"(?i)(?<!\w)[a-z]{2}\d{2}[a-z0-9]{11,30}(?!\w)"), 1.0, has_mod97),
    Form(
        "BANK_ACCOUNT",
        re.compile(
            "(?i)(?:account|acct|konto|routing|sort code|blz|bankleitzahl)[ -]?(?:number"
            r"|nr|no|nummer|code|#)?\.?\s{0,2}(?:is|ist|lautet)?[:#]?\s{0,2}(?P<it>\d[\d -]{4,20}\d)"
        ),
        0.6,
    ),
    Form("SOCIAL_SECURITY", re.compile(r"(?<![\w-])(?!000|666)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])"), 0.8),
    Form(
        "SOCIAL_SECURITY",
        re.compile(r"(?i)(?:ssn|social security)[^\n\d]{0,30}(?P<it>\d{3}[ .-]?\d{2}[ .-]?\d{4})(?!\d)"),
        0.9,
    ),
    Form(
        "DRIVING_LICENCE",
        re.compile(
            r"(?i)(?:driv(?:er'?s?|ing) licen[cs]e|licen[cs]e number|führerschein)[^\n\d]{0,40}?(?P<it>(?=[A"
            r"-Z0-9-]{0,6}\d)[A-Z0-9][A-Z0-9-]{5,19})(?![\w-])"
        ),
        0.7,
    ),
    Form(
        "ID_CARD",
        re.compile(
            "(?i)(?:passport|reisepass|personalausweis|ausweis|identity card|id[ -]card"
            r"|id number)[^\n\d]{0,30}?(?P<it>(?-i:(?=[A-Z0-9]{0,8}\d)[A-Z0-9]{6,12}))(?![\w-])"
        ),
        0.7,
    ),
    Form(
        "TAX_ID",
        re.compile(
            r"(?i)(?:steuer-?\s?(?:id|nummer|nr|identifikations)|idnr|tax (?:id|number)"
            r"|\btin\b)[^\n\d]{0,30}(?P<it>\d[\d /]{7,14}\d)(?!\d)"
        ),
        0.7,
    ),
    Form(
        "BIRTH_DATE",
        re.compile(
            rf"(?i)(?:born|birth(?:day|date)?|dob|geb\.|geboren|geburtsdatum|geburtstag)[^\n\d]{{0,30}}?"
            rf"(?P<it>{_DATE})(?!\d)"
        ),
        0.8,
    ),
    Form(
        "AGE",
        re.compile(
            r"(?i)(?<![\w.,])(?P<it>\d{1,3})(?:[ -]?(?:years?|yrs?)[ -]?old| ?y/o"
            r"|[ -]jahre[ -]alt|-?jährige[rsnm]?)\b"
        ),
        0.6,
        _is_age,
    ),
    Form(
        "AGE",
        re.compile(
            r"(?i)\b(?:aged|age(?: is|:| of)|(?:mein )?alter(?: ist|:)|i am|i'm|ich bin"
            "|turn(?:ed|ing)?|he is|she is|he's|she's|(?:when|als) (?:he|she|i|they"
            r"|er|sie|ich) (?:was|were|war))\s(?P<it>\d{1,3})(?=[.,;!?)]|$|\s(?:and"
            r"|und|years?|jahre)\b)"
        ),
        0.5,
        _is_age,
    ),
    Form("PERSON", re.compile(rf"(?<![\w.])(?:{_TITLE}\.?[ \t]+){{1,3}}(?P<it>{_NAME})"), 0.7, _is_somebody),
    Form(
        "PERSON",
        re.compile(
            "(?:[Mm]y(?: full| last| first)? name is|[Nn]ame'?s|I am called|[Ii]ch heiße"
            "|[Mm]ein(?: voller)? Name (?:ist|lautet)|[Hh]ier (?:ist|spricht)|named"
            rf"|namens|called me|je m'appelle|[Mm]e llamo)[ \t]+(?P<it>{_NAME})"
        ),
        0.7,
        _is_somebody,
    ),
    Form(
        "PERSON",
        re.compile(
            rf"(?m)^[ \t]{{0,4}}(?:Dear|Hi|Hello|Hey|Hallo|Liebe[rs]?|Lieber|Moin"
            "|Servus|Grüß Gott|Guten (?:Tag|Morgen|Abend)|Good (?:morning|evening)"
            rf"|Bonjour|Hola)[ \t]+(?P<it>{_NAME})(?=[ \t]{{0,2}}[,!:\n]|$)"
        ),
        0.6,
        _is_somebody,
    ),
    Form(
        "PERSON",
        re.compile(
            "(?:[Rr]egards|[Ss]incerely|[Cc]heers|Yours|[Gg]r(?:uß|üße|üßen|uessen)"
            rf"|[Tt]hanks|Danke|LG|MfG|VG|[Ll]ove)[ \t]?[,.!]?[ \t]{{0,3}}\n{{1,3}}[ \t]{{0,4}}(?P<it>{_NAME}"
            rf")(?=[ \t]{{0,3}}(?:\n|$))"
        ),
        0.6,
        _is_somebody,
    ),
    Form(
        "PERSON",
        re.compile(
            "(?:[Nn]ame|[Pp]atient(?:in)?|[Kk]und(?:e|in)|[Kk]lient(?:in)?|[Cc]lient"
            "|[Cc]ustomer|[Ee]mployee|[Ff]rom|[Vv]on|[Cc]ontact|[Kk]ontakt|[Aa]nsprechpartner(?:in)?"
            rf"|[Ss]igned|[Cc]ardholder|[Aa]pplicant|[Bb]ewerber(?:in)?)[ \t]{{0,2}}:[ \t]{{0,3}}(?P<it>"
            f"{_FULL_NAME})"
        ),
        0.6,
        _is_somebody,
    ),
    Form(
        "PERSON",
        re.compile(
            r"(?:\bI['’]m|\bI am|\b[Ii]ch bin|\b[Tt]his is|\bthe card is|\baccount is"
            r"|\bit['’]s under|\bunder the name(?: of)?)[ \t]{1,3}"
            rf"(?P<it>{_FULL_NAME})"
        ),
        0.5,
        _is_somebody,
    ),
    Form(
        "PERSON",
        re.compile(rf"(?i)\\?[\"']{PERSON_FIELD}\\?[\"'][ \t]{{0,2}}:[ \t]{{0,2}}\\?[\"'](?P<it>[^\"'\\\n]{{2,80}})"),
        0.8,
    ),
    Form(
        "USER_NAME",
        re.compile(
            r"(?i)\b(?:user ?name|benutzername|login|account name|instagram|twitter"
            r"|telegram|discord|skype)[ \t]?(?:is|ist|lautet|:|=)[ \t]{0,3}(?P<it>@?[\w.-]{3,40})"
        ),
        0.5,
    ),
    Form(
        "LICENCE_PLATE",
        re.compile(
            r"(?i)(?:kennzeichen|licen[cs]e plate|number plate|registration)[^\n]{0,20}?\b(?P<it>(?-i:[A-ZÄÖ"
            r"Ü]{1,3}[ -][A-Z]{1,2}[ -]?\d{1,4}[EH]?|[A-Z0-9]{2,4}[ -]?[A-Z0-9]{2,4}))(?!\w)"
        ),
        0.6,
        lambda text: any(map(str.isdigit, text)),
    ),
)

# Fields of tool calls whose whole value is personal data: what they are called, and of which type it is.
FIELDS = (
    (re.compile(rf"(?i)^{PERSON_FIELD}$"), "PERSON"),
    (re.compile(r"(?i)^(?:[a-z]{2,12}[_-])?(?:e-?mail|mail)(?:[_-]?address)?$"), "EMAIL"),
    (
        re.compile(
            "(?i)^(?:[a-z]{2,12}[_-])?(?:tele)?(?:phone|mobile|fon|tel|handy|fax)(?:[_-]?(?:number|nummer|nr))?$"
        ),
        "PHONE",
    ),
    (
        re.compile(
            "(?i)^(?:[a-z]{2,12}[_-])?(?:street|strasse|straße|postal|home|billing"
            r"|shipping)?[_-]?(?:address|adresse|anschrift)(?:[_-]?line)?[_-]?\d?$"
        ),
        "ADDRESS",
    ),
    (re.compile(r"(?i)^(?:street|strasse|straße|zip|zip[_-]?code|postcode|postal[_-]?code|plz)$"), "ADDRESS"),
    (re.compile(r"(?i)^(?:birth[_-]?(?:date|day)|date[_-]?of[_-]?birth|dob|geburtsdatum)$"), "BIRTH_DATE"),
    (re.compile(r"(?i)^(?:ssn|social[_-]?security(?:[_-]?number)?)$"), "SOCIAL_SECURITY"),
    (re.compile(r"(?i)^(?:iban|account[_-]?number|kontonummer)$"), "IBAN"),
)
