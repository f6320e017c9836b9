"""Other ways to write an answer, put into the usual one: in other languages, or `FINAL(<your answer>)`."""

from __future__ import annotations

import re
from itertools import islice

_MARKS = r"(?:[ \t>*_#`\"'-]|\d{1,3}[.)][ \t])*+"
_ANSWER_WORDS = (
    r"answer|result|output|response|conclusion|solution|final|respuesta|resultado|r\xe9ponse|r\xe9sultat"
    r"|antwort|ergebnis|risposta|risultato|resposta|\u043e\u0442\u0432\u0435\u0442"
    r"|\u0440\u0435\u0437\u0443\u043b\u044c\u0442\u0430\u0442|\u7b54\u6848|\u56de\u7b54|\u7ed3\u679c"
    r"|\u7b54\u3048|\u7d50\u679c|\uc815\ub2f5|\ub2f5\ubcc0|\ub2f5|\u0627\u0644\u0625\u062c\u0627\u0628\u0629"
    r"|\u0627\u0644\u062c\u0648\u0627\u0628|\u0909\u0924\u094d\u0924\u0930|cevap|odpowied\u017a|jawaban|svar"
)
"""In the languages that models write most."""

_COPULAS = (
    r"(?:is|es|est|ist|lautet|\u00e8|\u00e9)(?:[ ](?:pues|donc|also|daher|quindi|portanto))?"
    r"|\u0435\u0441\u0442\u044c|\u0647\u064a|\u0647\u0648|adalah|jest"
)
_COPULAS_OF_CHARACTERS = r"[\u662f\u4e3a\u70ba\u306f\uc740\ub294:\uff1a\u2014]"
_FINAL_ANSWERS = (
    r"respuesta[ ]final|r\xe9ponse[ ]finale|(?:finale|endg\xfcltige)[ ]antwort|endergebnis|risposta[ ]finale"
    r"|resposta[ ]final"
    r"|(?:\u043e\u043a\u043e\u043d\u0447\u0430\u0442\u0435\u043b\u044c\u043d\u044b\u0439"
    r"|\u0438\u0442\u043e\u0433\u043e\u0432\u044b\u0439)[ ]\u043e\u0442\u0432\u0435\u0442"
    r"|\u6700\u7ec8\u7b54\u6848|\u6700\u7d42\u7b54\u6848|\u6700\u7d42\u56de\u7b54"
    r"|\ucd5c\uc885[ ]?(?:\ub2f5\ubcc0|\ub2f5|\uc815\ub2f5)"
)
_PLACEHOLDER = (
    r"(?:(?:your|the|my|insert|put)[ _])*+(?:(?:final|actual|complete)[ _])?(?:answer|result|response|value|text)"
    r"(?:[ _](?:text|string|value|goes))?(?:[ _]here)?"
)
_PLACEHOLDERS = rf"[<\[{{]{{1,2}}{_PLACEHOLDER}[>\]}}]{{1,2}}|{_PLACEHOLDER}[ _]here|your[ ](?:\w{{1,10}}[ ])?answer"
_NAMES = (
    r"(?:(?:your|my|the|final)_){1,2}+(?:answer|result|response|output)|variable(?:_name)?"
    r"|(?:answer|result|var)_?(?:name|variable)|ANSWER|answer"
)
_CALL = r"(?<![\w.])(?P<call>FINAL(?:_VAR)?)"

_SPELLINGS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("\\_", re.compile(r"(?<![\w.])FINAL\\_VAR\b"), "FINAL_VAR"),
    (
        "_",
        re.compile(rf"^(?P<lead>{_MARKS})(?:FINAL_ANSWER|final_answer)(?=\()", re.MULTILINE),
        r"\g<lead>FINAL",
    ),
    (
        "",
        re.compile(rf"^(?P<lead>{_MARKS}){_CALL}\s++(?=\([^\n]*?\)[ \t.*_`]*+$)", re.MULTILINE),
        r"\g<lead>\g<call>",
    ),
    (
        "\uff08",
        re.compile(rf"{_CALL}\uff08(?P<text>[^()\uff08\uff09\n]*+)[)\uff09]"),
        r"\g<call>(\g<text>)",
    ),
    (
        "\uff09",
        re.compile(rf"{_CALL}\((?![\"'][^\n]{{0,300}}[\"']\))(?P<text>[^()\uff08\uff09\n]*+)\uff09"),
        r"\g<call>(\g<text>)",
    ),
    (
        "",
        re.compile(rf"^{_MARKS}FINAL[*_]*+[:\uff1a][ \t*_]*+(?=[^\s(]|\r?\n)", re.MULTILINE),
        "Final answer: ",
    ),
    (
        "",
        re.compile(rf"^{_MARKS}(?:\[[ xX]\][ ]|(?:return|await)[ ]++|print\()(?={_CALL}\()", re.MULTILINE),
        "",
    ),
    ("", re.compile(rf"\A\s*+[*_]*+(?i:assistant|ai|bot|model|me)[*_]*+:[ \t*_]*+(?={_CALL}\()"), ""),
    (
        "|",
        re.compile(
            r"^[ \t]*+\|(?:[ \t*_]*+(?i:(?:final[ ])?(?:answer|result))[ \t*_:]*+\|)?[ \t*_`]*+"
            rf"(?={_CALL}\([^\n]*\|[ \t]*+$)",
            re.MULTILINE,
        ),
        "",
    ),
    ("**", re.compile(rf"\*\*{_CALL}\((?P<text>[^()*\n]++)\*\*\)"), r"\g<call>(\g<text>)"),
    (
        "\u201c",
        re.compile(rf"{_CALL}\([ ]*+\u201c(?P<text>[^\u201c\u201d\"\\\n]*+)\u201d[ ]*+\)"),
        r'\g<call>("\g<text>")',
    ),
    ("=", re.compile(rf"{_CALL}\([ ]*+answer[ ]?=[ ]?(?=[\w$+-][^()=\n]*+\))"), r"\g<call>("),
    ("", re.compile(rf"{_CALL}\([ ]*+(?:{_PLACEHOLDERS})[ ]*+\)", re.IGNORECASE), "FINAL(...)"),
    ("", re.compile(rf"(?<![\w.])FINAL\((?P<quote>`?)(?P<name>{_NAMES})(?P=quote)\)"), r"FINAL_VAR(\g<name>)"),
    (
        "",
        re.compile(
            r"^(?P<lead>[ \t>]*+(?:[2-9]|\d\d)[.)][ \t]++)FINAL\((?P<name>[A-Za-z_]\w*+)\)(?=[ \t]*+$)", re.MULTILINE
        ),
        r"\g<lead>FINAL_VAR(\g<name>)",
    ),
    (
        "boxed",
        re.compile(
            r"^[ \t>*_$]*+(?:\\[\[(][ \t]*+)?\\boxed\{(?:\\(?:text|textbf|mathrm|mathbf)\{(?P<words>[^{}\n]++)\}"
            r"|(?P<text>[^{}\n]*+\{[^{}\n]*+(?:\{[^{}\n]*+\}[^{}\n]*+)*+\}(?:[^{}\n]++|\{[^{}\n]*+\})*+))\}"
            r"[ \t$*_.]*+(?:\\[\])])?[ \t.]*+$",
            re.MULTILINE,
        ),
        r"Final answer: \g<words>\g<text>",
    ),
)
"""What has to be in a text, how it is written, and the usual spelling."""

_STATED = re.compile(rf"^{_MARKS}(?:{_FINAL_ANSWERS})[*_ ]*+[:\uff1a][ \t*_]*+", re.MULTILINE | re.IGNORECASE)
_LABEL = re.compile(
    rf"\A{_MARKS}(?:(?:the|my)[ ])?(?:final[ ])?(?:{_ANSWER_WORDS})[*_ ]*+[:\uff1a][ \t*_`]*+\Z", re.IGNORECASE
)
_LEADS_IN = re.compile(
    rf"(?:{_ANSWER_WORDS})[^\n.!?\u3002()]{{0,30}}?(?:\b(?:{_COPULAS})|{_COPULAS_OF_CHARACTERS})[ \t*_`]*+\Z",
    re.IGNORECASE,
)
_DENIES = re.compile(
    r"\b(?:no|not|ne|nicht|kein\w*|pas|non|n\u00e3o|\u043d\u0435|si|wenn|falls|se|caso|\u0435\u0441\u043b\u0438)\b"
    r"|\u4e0d|\uc544|\u5982\u679c|\u82e5|\u5047\u8bbe|\u3082\u3057|\ub9cc\uc57d|[?\u00bf]",
    re.IGNORECASE,
)
"""A sentence that denies an answer, or supposes one."""

_SENTENCE_END = re.compile(r"[.!?;\u3002]\s")
_ANY_CALL = re.compile(r"FINAL(?:_VAR)?\(")
_MAY_BE = re.compile(r"final|\\boxed", re.IGNORECASE)
_BEGUN_PLACEHOLDER = re.compile(rf"\A[<\[{{]{{0,2}}(?:{_PLACEHOLDER}|your\b)", re.IGNORECASE)
_LEAD_CHARACTERS = 80
_MAX_CALLS = 1_000
_MAX_CHARACTERS = 500_000
"""A longer text is left as it is."""


def usual(prose: str) -> str:
    """The prose with its answers in the usual spelling."""
    if len(prose) > _MAX_CHARACTERS:
        return prose
    prose = _STATED.sub("Final answer: ", prose)
    if _MAY_BE.search(prose) is None:
        return prose
    for needle, pattern, replacement in _SPELLINGS:
        if needle in prose:
            prose = pattern.sub(replacement, prose)
    return _with_usual_leads(prose)


def _with_usual_leads(prose: str) -> str:
    """The prose with "Answer:" and "the answer is" before each call, in place of the same in other languages."""
    parts, at = [], 0
    for call in islice(_ANY_CALL.finditer(prose), _MAX_CALLS):
        begins = max(at, call.start() - _LEAD_CHARACTERS)
        line = prose.rfind("\n", begins, call.start()) + 1
        lead = prose[line or begins : call.start()]
        if _LABEL.match(lead):
            usual_lead = ""
        elif (found := _LEADS_IN.search(lead)) and not _DENIES.search(_SENTENCE_END.split(lead)[-1]):
            usual_lead = f"{lead[: found.start()]}the answer is "
        else:
            continue
        parts += [prose[at : call.start() - len(lead)], usual_lead]
        at = call.start()
    return "".join([*parts, prose[at:]])


def may_be_placeholder(text: str) -> bool:
    """Whether the first words of an answer may stand for another one: `your answer here`."""
    return _BEGUN_PLACEHOLDER.match(text) is not None
