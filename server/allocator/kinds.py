"""What kind of question it is, told from its text by rules that anybody can read.

    greeting    nothing but words of greeting or thanks
    code        there is code in it, or it asks for a program
    translate   it asks for another language
    rewrite     it asks for the same text in other words
    vote        it has an answer that can be counted: choices to choose from, arithmetic, yes or no, a short fact
    open        everything else

The first that fits counts. Choices, digits, code fences and question marks are the same in most languages; words are
not, and the lists below hold the commonest of English, German, French, Spanish, Italian and Portuguese. Whoever writes
in another language gets `open` more often than necessary, which asks a chair where a count would do: slower, not wrong.
A vote on what turns out to have no short answer falls back to the chair (council/agreement.py).
"""

import re

TEXT_CHARACTERS_MAX = 20_000
YES_NO_WORDS_MAX = 40
FACT_WORDS_MAX = 16

_PLEASE = r"(?i)^\W*(?:please |bitte |can you |could you |kannst du )?"
_GREETINGS = (
    r"hi|hello|hey|good (?:morning|evening|afternoon)|thanks|thank you|bye|goodbye|"
    r"hallo|servus|moin|guten (?:tag|morgen|abend)|danke|tsch[uü]ss|bonjour|salut|bonsoir|merci|au revoir|"
    r"hola|buenos d[ií]as|buenas tardes|gracias|adi[oó]s|ciao|salve|buongiorno|grazie|ol[aá]|bom dia|obrigad[oa]|"
    r"你好|谢谢|こんにちは|ありがとう|привет|спасибо"
)
_GREETED = r"there|all|everyone|everybody|again|you|so|very|much|a lot|zusammen|sehr|beaucoup|a todos|muchas"
GREETING = re.compile(rf"(?i)\W*(?:{_GREETINGS})(?:\W+(?:{_GREETINGS}|{_GREETED}))*\W*")
CODE = re.compile(
    r"```|^\s*(?:def|class|import|from|#include|public|func|fn|SELECT)\b.*[:;({]\s*$"
    r"|(?i:\b(?:write|implement|fix|debug|refactor|schreibe?|[eé]cris|escribe|scrivi)\b.{0,40}"
    r"\b(?:function|program|script|class|code|query|regex|unit tests?|funktion|programm|skript|fonction|programme|"
    r"funci[oó]n|programa|funzione|programma)\b)"
    r"|(?i:\b(?:python|javascript|typescript|rust|golang|c\+\+|sql|bash|java)\b.{0,40}"
    r"\b(?:function|script|code|query|error)\b)",
    re.MULTILINE,
)
TRANSLATE = re.compile(
    rf"{_PLEASE}(?:translate|[uü]bersetze?n?|tradui[rst]e?z?|traduc[ei]r?|traduza?|tradurre|traduci|翻译|翻譯|переведи)"
    r"|\b(?:translate|translation of) (?:this|that|it|the following)\b"
)
REWRITE = re.compile(
    rf"{_PLEASE}(?:rewrite|rephrase|paraphrase|reword|proofread|summari[sz]e|shorten|polish|"
    r"correct (?:the|my|this)|fix (?:the|my) grammar|"
    r"formuliere?|schreibe? .{0,40}\bum\b|korrigiere?|k[uü]rze|fasse? .{0,40}\bzusammen|"
    r"reformule|r[eé]sume|corrige|reescrib[ea]|resum[ea]|riscrivi|riassumi|reescrev[ea])\b"
)
# Places that begin with A), (b) or C.
CHOICE = re.compile(r"(?:^|\s)\(?([A-Ea-e])[).:]\s+\S")
ARITHMETIC = re.compile(r"[-+]?[\d.,()\s]+[-+*/^×÷·%=][-+*/^×÷·%=\d.,()\s?？]*")
NUMBER_ASKED = re.compile(
    r"(?i)\b(?:how (?:many|much|old|long|tall|far)|what (?:year|number|percentage)|which year|"
    r"wie ?(?:viele?|alt|lange?|hoch|weit)|combien|cu[aá]nt[oa]s?|quant[oiea]s?)\b|多少|几|いくつ|сколько"
)
COMPUTE = re.compile(rf"{_PLEASE}(?:solve|calculate|compute|berechne|calcule|calcula|calcola)\b")
YES_NO = re.compile(
    r"(?i)^\W*(?:is|are|was|were|do|does|did|can|could|will|would|has|have|had|should|must|true or false|yes or no|"
    r"ist|sind|war|waren|hat|haben|kann|wird|darf|stimmt|est-ce|es cierto|[eè] vero)\b"
)
FACT = re.compile(
    r"(?i)^\W*(?:who|when|where|which|"
    r"what (?:is|was|are) the (?:name|capital|date|symbol|largest|smallest|highest|longest|first)|"
    r"wer|wann|wo|welche[rsnm]?|qui|quand|o[uù]|quel(?:le)?s?|qui[eé]n|cu[aá]ndo|d[oó]nde|cu[aá]l|"
    r"chi|quando|dove|quale|quem|onde|qual)\b"
)
QUESTION_END = re.compile(r"[?？؟]\s*$")
SENTENCE_END = re.compile(r"[.!?？。！]\s+|\n")
EXPLAIN = re.compile(
    r"(?i)\b(?:why|explain|discuss|describe|compare|in detail|essay|warum|erkl[aä]re?|aufsatz|pourquoi|expli(?:que|ca)|"
    r"por qu[eé]|perch[eé])\b"
)


def kind_of(text: str) -> str:
    """The kind of a question, from the last message of its asker."""
    text = text[:TEXT_CHARACTERS_MAX].strip()
    if not text or GREETING.fullmatch(text):
        return "greeting"
    if CODE.search(text):
        return "code"
    if TRANSLATE.search(text):
        return "translate"
    if REWRITE.search(text):
        return "rewrite"
    return "vote" if _has_short_answer(text) else "open"


def _has_short_answer(text: str) -> bool:
    if len({letter.lower() for letter in CHOICE.findall(text)}) > 1 or ARITHMETIC.fullmatch(text):
        return True
    if EXPLAIN.search(text):
        return False
    if not QUESTION_END.search(text):
        return COMPUTE.search(text) is not None
    words = len(text.split())
    return (
        # A story may stand before its question.
        NUMBER_ASKED.search(SENTENCE_END.split(text)[-1]) is not None
        or (words <= FACT_WORDS_MAX and FACT.search(text) is not None)
        or (words <= YES_NO_WORDS_MAX and YES_NO.search(text) is not None)
    )
