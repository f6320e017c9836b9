"""Words behind an answer that take it back: `FINAL(17) is wrong, I count again`."""

from __future__ import annotations

import re

_ADVERBS = (
    r"(?:(?:a[ ]bit|almost|also|certainly|clearly|definitely|far|just|likely|maybe|merely|obviously|only|perhaps"
    r"|probably|quite|really|simply|still|surely|very|way|yet)[ ]){0,3}+"
)
_WRONG = (
    r"(?:wrong|incorrect|off(?![ ]by)|odd|strange|suspicious|implausible|impossible|mistaken|false|premature|weird"
    r"|unlikely|doubtful|questionable|(?:a|my)[ ](?:mistake|typo)|too[ ](?:low|high|small|large|big|few|many))\b"
)
_RIGHT = (
    r"(?:(?:the|my|a|an)[ ])?(?:final[ ]|right[ ]|correct[ ]|real[ ])?"
    r"(?:answer|result|right|correct|it|true|sure|certain|verified|checked|plausible|possible|solution|final)\b"
)
_GUESS = (
    r"(?:(?:the|my|a|an)[ ])?(?:first|initial|earlier|previous|tentative|preliminary|wild|old|rough)[ ]"
    r"(?:answer|estimate|guess|hypothesis|idea|impression|result|thought)\b|(?:only|just|merely)[ ](?:a|my)[ ]guess\b"
)
_JUDGED = (
    rf"(?:(?:is|are|was|were|'s|would[ ]be)[ ]{_ADVERBS}(?:{_WRONG}|not[ ]{_ADVERBS}{_RIGHT})"
    rf"|(?:is|was|were)[ ](?:{_GUESS})|would[ ]be[ ][^.!?;\n]{{0,60}}?\b(?:if|unless)\b"
    rf"|(?:is|was)n['\u2019]t[ ]{_ADVERBS}{_RIGHT}"
    rf"|(?:might|may|could)[ ](?:not[ ])?be[ ](?!verified|checked){_ADVERBS}(?:{_WRONG}|{_RIGHT})"
    rf"|(?:can(?:not|['\u2019]t|[ ]not)|must[ ]not)[ ]be[ ]{_ADVERBS}(?:{_WRONG}|{_RIGHT})"
    rf"|(?:looks?|seems?|sounds?|feels?|appears?)[ ](?:to[ ]be[ ])?{_ADVERBS}(?:{_WRONG}|not[ ]{_RIGHT})"
    rf"|(?:does[ ]not|doesn['\u2019]t|cannot|can['\u2019]t)[ ]{_ADVERBS}"
    r"(?:(?:look|seem|sound|feel|be)[ ](?:right|correct|plausible)|add[ ]up|match|fit|hold|make[ ]sense)\b"
    r"|ist[ ](?:falsch|nicht[ ]richtig)\b|est[ ](?:faux|fausse|incorrecte?)\b|es[ ](?:incorrect[ao]|fals[ao])\b)"
    # "looks odd, but it is right"
    r"(?![^.!?\n]{0,80}?\bbut\b[^.!?\n]{0,40}?\b(?:right|correct|holds|the[ ]answer)\b)"
)
_CHECK = r"(?:check|count|verify|look|re-?\w+|confirm|test|inspect|examine|see|compute|read|try|make[ ]sure)\b"
_HESITATION = (
    r"(?:h+m+\b|wait(?=[ ]*[,.!:;\u2026\u2014-])"
    r"|no(?:pe)?[ ]*[,.!:;\u2026\u2014-]*[ ](?:wait|that|this|it|i|let[ ]me|hmm|actually|not)\b"
    r"|oops\b|hold[ ]on\b"
    r"|hang[ ]on\b|scratch[ ]that\b|strike[ ]that\b|never[ ]?mind\b|on[ ]second[ ]thought"
    r"|(?:i[ ]am[ ]|i['\u2019]m[ ])?(?:not[ ](?:yet[ ])?(?:sure|certain|verified|checked|final)"
    r"|unsure|unverified)\b(?![ ](?:about|why))"
    rf"|(?:but|though|although)[ ](?:first[ ])?(?:i|let[ ]me|we)[ ]"
    rf"(?:(?:still|will|must|should|have[ ]to|need[ ]to|want[ ]to|first|am|not|only)[ ]){{0,4}}+(?:{_CHECK}|sure\b))"
)
_CLOSING = r"[\"'*_`)$}\]\\|]*+"
_TAKES_BACK = re.compile(
    rf"\A{_CLOSING}[ ]?(?:{_JUDGED}|\s?[.,;:!?\u2026\u2014\u2013 \n-]*+\(?(?:actually,?[ ])?(?:{_HESITATION}"
    rf"|(?:(?:but|which|and)[ ])?(?:(?:that|this|it)(?:[ ](?:answer|number|result|value))?|which)[ ]?{_JUDGED}))",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\A[\"'*_`)$]*+\s?+(?:,?[ ]?(?:right|correct|no|yes|isn't it|is that right)"
    r"|\u3067\u3059\u304b|\u3067\u3057\u3087\u3046\u304b|\u5417|\u55ce|\uc778\uac00\uc694|\uc785\ub2c8\uae4c)?[?\uff1f](?!\s?[Yy]es\b)"
)
_MAX_BEHIND = 400
"""Characters behind an answer that are read."""


def takes_back(behind: str) -> bool:
    """Whether the words behind the closing parenthesis of an answer ask whether it is right, or take it back."""
    behind = behind[:_MAX_BEHIND]
    return _ASKS.match(behind) is not None or _TAKES_BACK.match(behind) is not None
