"""Postal addresses by form: street and number, and what follows up to the postcode.

The words for "street" of Europe's larger languages, in front of the name (rue, via), behind it (Road) or grown to it
(Lindenstraße, Storgatan). A postcode alone is a number; it counts where its form is unmistakable (United Kingdom,
Canada), where a word announces it, or where a street comes before it.
"""

import re
from collections.abc import Iterator

from server.privacy.detectors.looking import Match

_UPPER = "A-ZÄÖÜÅØÆÁÉÍÓÚÑÇŠŽČŘŁŐŰÈÀÂÊÎÔÛ"
_NUMBER = r"\d{1,4}\s?(?:[a-hA-H](?![\w]))?(?:\s?[-/]\s?\d{1,4}\s?[a-h]?)?"
# After the number comes no unit: "5 Minuten Heimweg 10 Minuten".
_NO_UNIT = (
    r"(?!\s?(?:Minuten|Min\b|km|Meter|m\b|Uhr|%|€|Euro|Stunden|Tage|Jahre|Mal|minutes|hours|days|years|[.,]\d))(?!\w)"
)
_GROWN = (
    r"(?:straße|strasse|str\.|gasse|weg|platz|allee|ring|ufer|damm|chaussee|steig|pfad|markt|stieg|redder|graben|brücke"
    r"|katu|tie|kuja|polku|tori|gatan|vägen|gränd|väg|gata|veien|vegen|vei|vej|gade|vænget|stræde|bakken"
    r"|straat|laan|gracht|plein|kade|dreef|singel|dijk)"
)
# Also in small letters no other word.
_GROWN_SURELY = r"(?:straße|strasse|gasse|chaussee|vej|gatan|vägen|katu|straat|gracht)"
_AHEAD = (
    "(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Cc]hemin|[Ii]mpasse|[Aa]llée|Via"
    r"|Viale|Piazza|Corso|Vicolo|Strada|Calle|C/|Avenida|Av\.|Avda\."
    r"|Plaza|Paseo|Rua|Travessa|Praça|Largo|ul\.|Ulica|al\.|Str\.|Bulevardul|ulitsa)"
)
_BEHIND = (
    "(?:Streets?|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Boulevard|Blvd|Way"
    "|Court|Ct|Place|Pl|Squares?|Sq|Terrace|Ter|Close"
    "|Crescent|Cres|Highway|Hwy|Parkway|Pkwy|Circle|Cir|Trail|Row|Grove"
    "|Gardens|Mews|Walk|Rise|Loop|Pike|Alley|Quay|Esplanade)"
)
_HUNGARIAN = r"(?:utca|u\.|út|útja|tér|körút|köz|sétány|sor)"
_STREETS = tuple(
    re.compile(pattern)
    for pattern in (
        (
            rf"(?<!\w)(?:\d{{1,6}}\s)?(?:[{_UPPER}][\w.'’-]{{1,30}}[ -]){{0,3}}[{_UPPER}][\w'’-]{{1,40}}"
            rf"{_GROWN}\s{_NUMBER}{_NO_UNIT}"
        ),
        (
            rf"(?<!\w)(?:[{_UPPER}][\w'’-]{{1,30}}[ -]){{1,3}}(?:Straße|Strasse|Str\."
            rf"|Gasse|Weg|Platz|Allee|Ring|Ufer|Damm|Gate|Vei|Väg)\s{_NUMBER}{_NO_UNIT}"
        ),
        rf"(?<!\w)(?:\d{{1,6}}\s)?[a-zäöüßåøæ]{{3,30}}{_GROWN_SURELY}\s{_NUMBER}{_NO_UNIT}",
        (
            rf"(?<!\w)(?:\d{{1,6}}\s)?{_AHEAD}\s(?:(?:d[aeiou]s?|del?l?a?|du|des|la"
            rf"|le|les|dos|das|d'|l')\s?){{0,2}}[{_UPPER}][\w'’.-]{{1,30}}(?:\s[\w'’.-]{{1,20}}){{0,3}}?,?\s"
            rf"(?:n[°º.]?\s?)?\d{{1,5}}(?!\w)"
        ),
        (
            rf"(?<![\w.,])\d{{1,4}}(?:\s?(?:bis|ter))?,?\s(?:rue|avenue|av\.|boulevard"
            r"|bd|place|chemin|impasse|quai|allée|cours|route)\s(?:(?:de|du|des|la"
            rf"|le|les|d'|l')\s?){{0,2}}[{_UPPER}][\w'’-]{{1,30}}(?:\s[{_UPPER}][\w'’-]{{1,20}}){{0,3}}"
        ),
        rf"(?<![\w.,])\d{{1,6}}[A-Za-z]?,?\s(?:[{_UPPER}0-9][\w'’.-]{{0,25}}\s){{1,5}}{_BEHIND}(?!\w)\.?",
        rf"(?<!\w)(?:\d{{1,6}}\s)?[{_UPPER}][\w'’.-]{{1,30}}(?:\s[\w'’.-]{{1,30}}){{0,3}}?\s{_HUNGARIAN}\s\d{{1,4}}\.?",
        r"(?i)(?<!\w)(?:p\.? ?o\.? ?box|postfach|apartado|boîte postale)\s?\d[\d ]{0,8}\d?(?!\w)",
        r"(?i)(?<!\w)(?:PSC \d{1,5},? Box \d{1,6}|Unit \d{1,6} Box \d{1,6}|USS \w{2,20})(?!\w)",
        r"(?i)(?<!\w)[AFD]PO,? A[AEP]\s{1,2}\d{5}(?!\w)",
        r"(?i)(?<!\w)(?:Apt|Apartment|Suite|Ste)\.?\s(?:No\.?\s|#)?\d{1,5}[A-Za-z]?(?!\w)",
    )
)
_POSTCODES = (
    re.compile(
        r"(?<!\w)(?:GIR ?0AA|[A-PR-UWYZ](?:\d{1,2}|[A-HK-Y]\d{1,2}|\d[A-HJKPSTUW]"
        r"|[A-HK-Y]\d[ABEHMNPRV-Y]) \d[ABD-HJLNP-UW-Z]{2})(?!\w)"
    ),
    re.compile(r"(?<!\w)[ABCEGHJ-NPRSTVXY]\d[ABCEGHJ-NPRSTV-Z][ -]?\d[ABCEGHJ-NPRSTV-Z]\d(?!\w)"),
    re.compile(
        r"(?i)(?:\bzip(?: ?code)?|post(?:al)?[ -]?code|\bplz|postleitzahl|code postal"
        r"|código postal)[^\n\d]{0,20}?(?P<it>\d(?-i:[\dA-Z]){2,6}(?:[ -](?-i:[\dA-Z]){2,4})?)(?!\w)"
    ),
    re.compile(r"(?<!\w)(?:D|A|CH|DE|AT)-\d{4,5}(?:\s[A-ZÄÖÜ][\wäöüß-]{2,30})?(?!\w)"),
    re.compile(
        r"(?m)(?:^|,)[ \t]{0,4}(?P<it>\d{5}[ \t][A-ZÄÖÜ][a-zäöüß]{2,30}(?:[ -][A-Za-zäöüß/.()-]{2,20})"
        r"{0,3})[ \t]{0,2}(?:[,.;]|$)"
    ),
    re.compile(r"(?<!\w)[A-Z][a-zA-Z ]{2,25},\s(?P<it>[A-Z]{2}\s{1,2}\d{5}(?:-\d{4})?)(?!\w)"),
)
# An address that is announced as one, and the line of an envelope: number, words, number.
_ANNOUNCED = (
    re.compile(
        r"(?i)\b(?:lives? (?:at|on)|living at|resid(?:es?|ing) (?:at|in)|(?:billing"
        "|mailing|shipping|home|new|my|his|her|their) address"
        "(?: is| to|:)|wohnhaft(?: in)?|wohne? (?:in|an)(?: der| dem)?|wohnt (?:in"
        "|an)(?: der| dem)?|anschrift(?: ist| lautet|:)"
        r"|adresse(?: ist| lautet|:))\s{1,3}(?P<it>[^\n.!?\d]{0,50}\d[^\n.!?]{0,60})"
    ),
    re.compile(
        rf"(?m)^[>\t ]{{0,8}}(?P<it>\d{{1,6}} [{_UPPER}][\w'’.-]{{2,25}}(?: [\w'’.-]{{1,20}}){{0,3}} \d"
        rf"{{1,4}}[a-z]?)[ \t]{{0,3}},?$"
    ),
)
# What may follow a street: at most so many lines or items, the last of which holds a postcode.
_ITEMS_MAX = 5
_ITEM_MAX = 45
_ITEM = re.compile(r"\s{0,3}[,\n]?\s{0,3}[^,\n.!?]{1,45}")
_ENDS_IN_POSTCODE = re.compile(
    r"(?<!\w)(?:[A-Z]{1,2}-?)?\d{4,6}(?:-\d{3,4})?(?!\w)|[A-Z]{1,2}\d{1,2}[A-Z]?\s\d[A-Z]{2}(?!\w)"
)
_PLACE = re.compile(r"\s[A-ZÄÖÜ][\wäöüß-]{2,30}(?:[ -](?:am|an der|im|ob der|[A-ZÄÖÜ])[\wäöüß-]{0,20})?")


def found(text: str) -> Iterator[Match]:
    """The addresses in `text`, each with its postcode and place where they follow."""
    for pattern in _STREETS:
        for match in pattern.finditer(text):
            yield Match("personal", "ADDRESS", match.start(), _end(text, match.end()), 0.7)
    for pattern in (*_POSTCODES, *_ANNOUNCED):
        group = "it" if "it" in pattern.groupindex else 0
        for match in pattern.finditer(text):
            yield Match("personal", "ADDRESS", *match.span(group), 0.6)


def _end(text: str, end: int) -> int:
    """Where the address ends whose street ends at `end`."""
    at = end
    for _ in range(_ITEMS_MAX):
        item = _ITEM.match(text, at)
        if item is None:
            return end
        postcode = _ENDS_IN_POSTCODE.search(text, at, item.end())
        if postcode is not None:
            place = _PLACE.match(text, postcode.end(), min(len(text), postcode.end() + _ITEM_MAX))
            return place.end() if place is not None else postcode.end()
        at = item.end()
        if at >= len(text) or text[at] not in ",\n":
            return end
    return end
