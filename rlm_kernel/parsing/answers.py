"""Read an answer that a reply gives as text: where `FINAL(` stands, where it ends, and what is between."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, replace
from itertools import islice

from rlm_kernel.parsing.compiler import MAX_COMPILED, Compiler
from rlm_kernel.parsing.records import TextAnswer
from rlm_kernel.parsing.source import broken_source, ends_in_text, is_data, source_of
from rlm_kernel.parsing.withdrawals import takes_back

# Possessive quantifiers prevent backtracking, each step of which would cost the length of a line.
_MARKS = (
    r"[ \t>*_`#$\"'+\ufeff\u200b\u2060-]|\d{1,3}[.)][ \t]|\\(?:boxed|text|textbf)\{|\\[\[(]|<[|/\w][^<>\n]{0,40}+>"
    r"|\[/?INST\]"
)
_LABEL = r"(?i:(?:the[ \t])?(?:final[ \t])?(?:answer|result)[*_]*+[:=][ \t*_]*+)"
NAME = re.compile("final", re.IGNORECASE)
_BEFORE_ARGUMENT = r"[*_`\u200b-\u200d\u2060\ufeff]{0,3}"
_CALL = rf"(?P<call>FINAL_VAR|FINAL){_BEFORE_ARGUMENT}\("
_ANY_CALL = rf"(?P<call>(?i:FINAL_?VAR|FINAL)){_BEFORE_ARGUMENT}\("
FINAL = re.compile(rf"^(?:{_MARKS}|{_LABEL})*+{_ANY_CALL}", re.MULTILINE)
"""An answer at the start of a line, behind marks of Markdown and "Answer:". Small models write `FinalVar(`, too."""

_CALL_OF_SENTENCE = re.compile(rf"(?<![\w.]){_ANY_CALL}")
_STATED = re.compile(
    r"^[ \t>*_#]*+(?i:(?:the|my)?[ \t]*+final[ \t]answer)(?:[ \t]is)?[*_]*+[ \t]*+"
    r"(?:[:=][ \t*_]*+(?P<text>[^\n]*+))?$"
    r"|^[ \t>*_$]*+(?:\\[\[(][ \t]*+)?(?P<boxed>\\boxed\{[^{}\n]++\})[ \t$*_.]*+(?:\\[\])])?[ \t.]*+$",
    re.MULTILINE,
)
"""An answer in a line of its own, without a call: "Final answer: 42", or a box; or the heading of the answer."""

CALL = re.compile(rf"(?<![\w.]){_CALL}")
"""An answer, or a mention of one, anywhere."""

QUOTED_CALL = re.compile(rf"(?<![\w.]){_CALL}\s*+[rRuUfFbB]{{0,2}}(?:\"\"\"|''')")
"""An answer in triple quotes, anywhere."""

_TRIPLE_QUOTES = re.compile(r"(?<!\s)\s*+[rRuUfFbB]{0,2}(?P<quote>\"\"\"|''')")
_END_OF_QUOTED = {quote: re.compile(rf"{quote}[ \t\r\n,]*+\)") for quote in ('"""', "'''")}
_LEADS_IN = re.compile(
    r"(?:(?:^|[\s*_,])(?:is|are|was|be|equals|therefore|thus|hence|so"
    r"|(?:the|my|final)[ \t](?:answer|result|response))[ \t,:*_]*+"
    r"|\A[ \t>*-]*+in (?:a|the) cell:[ \t]++"  # the words of the prompt, which small models repeat
    r"|[=\u2192][ \t]*+|[.!?;][\"')*_]*+[ \t]++|\A[^\w\n]++)[`\"'*_$\\(]*+\Z",
    re.IGNORECASE,
)
_LEADS_IN_SURELY = re.compile(
    r"\b(?:answer|result|solution)\b[^.\n]{0,30}?(?:\b(?:is|are)\b|[:=])[ \t`\"'*_$]*+\Z", re.IGNORECASE
)
_SUPPOSED = re.compile(
    r"(?:\b(?:if|unless|whether|suppose|supposing|assume|assuming|imagine|pretend|let'?s[ \t]say|doubt|unlikely|not"
    r"|never|(?:might|may|could|cannot)[ \t]be|sa(?:ys|id)|claim(?:s|ed)|state[sd]|writes|wrote|thinks|believes)\b"
    r"|n['\u2019]t\b)(?:(?!\b(?:so|therefore|thus|hence|but|and)\b)[^.!?,;\n])*+\Z",
    re.IGNORECASE,
)
_SENTENCE_CHARACTERS = 200
_BEHIND_LAST = re.compile(r"\A(?:(?:[\s.!*_`\"'}\])$\\]|[^\w\x00-\x7f])*+\Z|\s*+</\w{1,20}>\s*+\Z)")
_LEAD_CHARACTERS = 60
_PLACEHOLDERS = frozenset({"...", "\N{HORIZONTAL ELLIPSIS}", "your answer", "<your answer>", "your final answer"})

# What holds a parenthesis that is none: a fenced block, `code`, ")", [0, 1), :-)
_TOKEN = re.compile(
    r"(?P<opaque>^[ \t>]*+(?P<fence>```|~~~)[^`\n]*+\n(?:(?![ \t>]*+(?P=fence))[^\n]*+\n)*+[ \t>]*+(?P=fence)[`~]*+"
    r"|`[^`\n]++`|[\"'][()][\"']|\[[^\[\]()\n,;]{0,40}+[,;][^\[\]()\n]{0,40}+\)"
    r"|\([^\[\]()\n,;]{0,40}+[,;][^\[\]()\n]{0,40}+\])"
    r"|(?P<smiley>[:;=]['^o-]?\)++)|(?P<sad>[:;=]['^-]?\()|[()]",
    re.MULTILINE,
)
_MARKER = re.compile(r"(?P<before>\A|(?<=\s)|\()(\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})\)(?=[ \t]++\S|\s*+\Z)")
_FIRST = frozenset({"0", "1", "a", "A", "i", "I"})
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
_LINE_ENDS = re.compile(r"\A[ \t*_`\"'.$}\]\\]*+(?:<[^<>\n]{1,40}+>[ \t]*+)?(?:\n|\Z)")
_CODE_BEGINS = re.compile(r"\A\s*+(?:[rRuUbBfF]{0,2}[\"']|[^\W\d]\w*+[.(\[]|[\[{(])")
_IN_FULL = re.compile(r"\A(?:\$*\\boxed\{(?P<boxed>[^{}]*+)\}\$*|(?P<mark>\*\*|__)(?P<bold>[^*_]++)(?P=mark))\Z")
_NAMED = re.compile(r"\A(?:answer|value|result|content|text)\s*+=\s*+(?=[rRuU]?[\"'])")
_OPENING_QUOTE = re.compile(r"\A(?:\"\"\"|'''|\")")
_PRINTED = re.compile(r"\Aprint\((?P<inside>.*)\)\Z", re.DOTALL)
_OUTER_QUOTES = re.compile(r"\A(?P<quote>\"\"\"|'''|\"|')(?P<inside>.*)(?P=quote)\Z", re.DOTALL)
_ENDS_PARAGRAPH = re.compile(r"\)[ \t*_`\r]*+\n[ \t\r]*+\n")
_CLOSING_PARENTHESIS = re.compile(r"\)")
_MAX_PARENTHESES = 500
_FENCE = "```"
_WORD = re.compile(r"\w")
_BLOCK_ALONE = re.compile(r"\A\s*+```[\w+-]*+[ \t\r]*+\n(?P<text>[^`]*+(?:`(?!``)[^`]*+)*+)```\s*+\Z")
_MAX_LINE = 2_000
_MAX_CORRECTIONS = 10
_MAX_MENTIONS = 1_000  # the last ones
_MAX_TOKENS = 100_000


@dataclass(frozen=True, slots=True)
class Argument:
    """The text between the parentheses.

    Attributes:
        text: without spaces around it; all of the rest if it is not closed.
        end: where the closing parenthesis is, in the rest of the reply.
        closed: whether there is one.
        certain: whether it cannot be a part of an answer that goes on.
    """

    text: str
    end: int
    closed: bool
    certain: bool = True


def first_call(text: str) -> re.Match[str] | None:
    """The first answer at the start of a line."""
    return FINAL.search(text) if has_name(text) else None  # the pattern takes long for millions of lines


def names_variable(call: str) -> bool:
    """Whether a call is that of `FINAL_VAR`."""
    return call.upper().endswith("VAR")


def has_name(text: str) -> bool:
    """Whether an answer may be in a text."""
    return NAME.search(text) is not None


def text_answer(
    prose: str, compiler: Compiler, *, finished: bool, has_code: bool = False
) -> tuple[TextAnswer | None, bool]:
    """The first answer in the prose of a reply, and whether the end of an unfinished reply cut it.

    Args:
        prose: without the code that runs.
        compiler: of the reply.
        finished: whether the model stopped by itself.
        has_code: whether code of the reply runs.
    """
    found, prose, argument = _call_that_stays(prose, compiler)
    if found is None or argument is None:
        answer, is_cut = _answer_in_sentence(prose, compiler)
        if is_cut and not finished:
            return None, True
        stated = None if answer or has_code else _stated_answer(prose)
        if stated is None:
            return answer, False
        return (_answer("FINAL", stated, compiler), False) if finished else (None, True)
    rest = prose[found.end() :]
    if not (finished or (argument.closed and argument.certain and not ends_in_text(argument.text))):
        return None, True
    text = argument.text
    # `FINAL(str(x)`: the one parenthesis belongs to the expression.
    if (
        not argument.closed
        and not (source_of(text, compiler) or broken_source(text))
        and (last := rest.rfind(")")) >= 0
    ):
        text = rest[:last].strip()
    return _answer(found["call"], text, compiler), False


def _call_that_stays(prose: str, compiler: Compiler) -> tuple[re.Match[str] | None, str, Argument | None]:
    """The answer at the start of a line that the words behind it do not take back, or None; and its prose."""
    for _ in range(_MAX_CORRECTIONS):
        if (first := first_call(prose)) is None:
            return None, prose, None
        found, argument = _last_alone(prose, first, compiler)
        behind = found.end() + argument.end + 1
        if not argument.closed or not takes_back(prose[behind : behind + _MAX_LINE]):
            return found, prose, argument
        prose = prose[behind:]
    return None, "", None


def _last_alone(prose: str, call: re.Match[str], compiler: Compiler) -> tuple[re.Match[str], Argument]:
    """The answer that corrects the first one: the last of those that have a line of their own; else the first."""
    argument = read_argument(prose[call.end() :], compiler)
    at = call.end() + argument.end + 1
    for _ in range(_MAX_CORRECTIONS):
        if not argument.closed or not argument.certain or not _LINE_ENDS.match(prose[at : at + _MAX_LINE]):
            break
        later = FINAL.search(prose, at)
        if later is None:
            break
        corrected = read_argument(prose[later.end() :], compiler)
        at = later.end() + corrected.end + 1
        if (
            not corrected.closed
            or corrected.text.lower() in _PLACEHOLDERS
            or not _LINE_ENDS.match(prose[at:][:_MAX_LINE])
        ):
            break
        call, argument = later, corrected
    return call, argument


def _stated_answer(prose: str) -> str | None:
    """The last answer without a call, in a line of its own or in the block below its heading; not beside a block."""
    if CALL.search(prose) is not None:
        return None
    lines = deque(_STATED.finditer(prose), maxlen=1)
    if not lines:
        return None
    found = lines[0]
    if _FENCE in prose:
        block = _BLOCK_ALONE.match(prose[found.end() :])
        is_heading = not (found["boxed"] or (found["text"] or "").strip()) and _FENCE not in prose[: found.start()]
        return block["text"].strip() or None if block is not None and is_heading else None
    text = found["boxed"] or (found["text"] or "").strip() or prose[found.end() :]
    return text.strip().removesuffix("**").strip() or None


def _answer_in_sentence(prose: str, compiler: Compiler) -> tuple[TextAnswer | None, bool]:
    """The answer at the end of the last sentence ("So it is FINAL(42)") or behind "the answer is"; and is it open?"""
    found, is_sure = None, False
    for call in deque(_CALL_OF_SENTENCE.finditer(prose) if has_name(prose) else (), _MAX_MENTIONS):
        lead = prose[max(0, call.start() - _LEAD_CHARACTERS) : call.start()].rpartition("\n")[2]
        sentence = prose[max(0, call.start() - _SENTENCE_CHARACTERS) : call.start()].rpartition("\n")[2]
        if _LEADS_IN.search(lead) and not _SUPPOSED.search(sentence):
            found, is_sure = call, _LEADS_IN_SURELY.search(lead) is not None
    if found is None:
        return None, False
    rest = prose[found.end() :]
    argument = read_argument(rest, compiler)
    if (
        not argument.closed
        or takes_back(rest[argument.end + 1 :])
        or not (is_sure or _BEHIND_LAST.match(rest[argument.end + 1 :]))
    ):
        return None, is_sure and not argument.closed
    answer = _answer(found["call"], argument.text, compiler)
    # A single word may stand for the answer in a sentence about how to give it.
    return answer and replace(answer, must_be_variable=answer.name is not None), False


def _answer(call: str, text: str, compiler: Compiler) -> TextAnswer | None:
    if (printed := _PRINTED.match(text)) is not None and compiler.expression(printed["inside"]) is not None:
        text = printed["inside"]  # the value, not the None of `print`
    if text.lower() in _PLACEHOLDERS:
        return None
    source = source_of(text, compiler) or broken_source(text)
    if names_variable(call):
        name = text.strip("\"'` ")
        source = None if name.isidentifier() or source is None else replace(source, certain=True)
        return TextAnswer(text, name, must_be_variable=source is None, source=source)
    if source is not None:
        return TextAnswer(text, source=source)
    name = text.strip("`")
    return TextAnswer(plain(text, compiler), name if name.isidentifier() else None)


def plain(text: str, compiler: Compiler) -> str:
    """An answer without what is around all of it: quotes, a box, bold print."""
    text = _NAMED.sub("", text)
    if (whole := _IN_FULL.match(text)) is not None:
        return (whole["boxed"] or whole["bold"] or "").strip()
    if (string := compiler.string(text)) is not None:
        return string
    if (quoted := _OUTER_QUOTES.match(text)) is not None and compiler.expression(text) is None:
        return quoted["inside"]
    opened = _OPENING_QUOTE.match(text)
    return text if opened is None or text.count(opened[0]) > 1 else text[opened.end() :]


# -- the end of an answer


def _unbalanced(rest: str, compiler: Compiler) -> Argument:
    """An argument with a parenthesis too few: it ends with its paragraph if that ends with a parenthesis."""
    end = _ENDS_PARAGRAPH.search(rest)
    if end is None or source_of(rest[: end.start() + 1].strip(), compiler) or broken_source(rest):
        return Argument(rest.strip(), len(rest), closed=False)
    return Argument(rest[: end.start()].strip(), end.start(), closed=True, certain=False)


def read_argument(rest: str, compiler: Compiler) -> Argument:
    """The argument of a call whose opening parenthesis stands before `rest`.

    The end is the balanced parenthesis. One that belongs to a list (`2) pears`), to a smiley or to an interval is not
    counted if another one follows that can be the end.
    """
    end, certain = _end_of_code(rest, compiler), True
    if end is None:
        end = end_of_quoted(rest, 0)
    if end is None:
        end, certain = _balanced(rest, sad_opens=True)
    if end is None and _sad(rest):
        end, certain = _balanced(rest, sad_opens=False)
    if end is None or (not certain and _is_too_many(rest, end)):
        return _unbalanced(rest, compiler)
    return Argument(rest[:end].strip(), end, closed=True, certain=certain)


def end_of_quoted(text: str, start: int) -> int | None:
    """Where the argument in triple quotes that begins at `start` ends, before its parenthesis; None: nothing closes it.

    Code in it may have quoted texts of its own: the end stands where all fences before it are closed.
    """
    opened = _TRIPLE_QUOTES.match(text, start)
    if opened is None:
        return None
    at, fences = opened.end(), 0
    another = QUOTED_CALL.search(text, at)
    limit = len(text) if another is None else another.start()
    for closing in islice(_END_OF_QUOTED[opened["quote"]].finditer(text, at, limit), _MAX_PARENTHESES):
        fences += text.count(_FENCE, at, closing.start())
        if fences % 2 == 0:
            return closing.end() - 1
        at = closing.end()
    return None


def _end_of_code(rest: str, compiler: Compiler) -> int | None:
    """The end of a quoted text or of an expression, in whose strings there may be parentheses."""
    if not _CODE_BEGINS.match(rest):
        return None
    for match in islice(_CLOSING_PARENTHESIS.finditer(rest), _MAX_PARENTHESES):
        if match.start() > MAX_COMPILED:
            break
        inside = rest[: match.start()].strip()
        if inside[:1] in ("'", '"') and compiler.string(inside) is not None:
            return match.start()
        if inside[:1] in ("[", "{") and is_data(inside, compiler):
            return match.start()
        source = source_of(inside, compiler)
        if source is not None and source.certain:
            return match.start()
    return None


def _is_too_many(rest: str, end: int) -> bool:
    """Whether a paragraph before an uncertain end closes a parenthesis that an earlier paragraph has opened."""
    last = _ENDS_PARAGRAPH.search(rest, 0, end)
    if last is None:
        return False
    paragraph = rest[rest.rfind("\n\n", 0, last.start()) + 1 : last.start() + 1]
    return paragraph.count(")") > paragraph.count("(")


def _sad(rest: str) -> bool:
    return any(token["sad"] for token in islice(_TOKEN.finditer(rest), _MAX_PARENTHESES))


def _balanced(rest: str, *, sad_opens: bool) -> tuple[int | None, bool]:
    """Where the balanced parenthesis is, or None; and whether it is one for certain."""
    markers = _markers(rest)
    depth, odd, odd_end = 1, None, 0
    for token in islice(_TOKEN.finditer(rest), _MAX_TOKENS):
        if token["opaque"]:
            continue
        if token[0][-1] == "(":
            depth += 1 if sad_opens or not token["sad"] else 0
            continue
        if depth > 1:
            depth = max(1, depth - token[0].count(")"))
            continue
        place = token.end() - 1
        if (token["smiley"] and token[0].count(")") == 1) or place in markers:
            odd, odd_end = (place if odd is None else odd), token.end()
        elif odd is None:
            return _last_of_line(rest, place)
        elif "\n" not in rest[odd_end:place] or _LINE_ENDS.match(rest[place + 1 :]):
            return place, True
        else:
            return odd, False
    return odd, False


def _last_of_line(rest: str, place: int) -> tuple[int, bool]:
    """The unbalanced parenthesis that ends the line of a balanced one, behind more words; else the balanced one.

    It is not certain if more of that line may follow.
    """
    line, is_whole, _ = rest[place + 1 : place + _MAX_LINE].partition("\n")
    tokens = [token for token in _TOKEN.finditer(line) if token[0] in "()"]
    depth, end = 0, None
    for token in tokens:
        depth += 1 if token[0] == "(" else -1
        if depth < 0:
            depth, end = 0, token.start()
    if end is None or not _LINE_ENDS.match(line[end + 1 :]) or not _WORD.search(line[:end]):
        return place, bool(is_whole) or not _WORD.search(line)
    return place + 1 + end, True


def _markers(rest: str) -> frozenset[int]:
    """Where the parentheses of numbered lists are: `1)` at the start of a line, or one that `2)` follows."""
    found = list(islice(_MARKER.finditer(rest), _MAX_PARENTHESES))
    words = [marker[2] for marker in found]
    seen: set[str] = set()
    places = []
    for number, marker in enumerate(found):
        word = marker[2]
        if marker["before"]:  # `(a)` is balanced; `b)` may follow
            seen |= _next(word)
            continue
        later = set(words[number + 1 : number + 20])
        starts = word in _FIRST and (_begins_line(rest, marker.start()) or not later.isdisjoint(_next(word)))
        if starts or word in seen:
            places.append(marker.end() - 1)
            seen |= _next(word)
    return frozenset(places)


def _begins_line(text: str, at: int) -> bool:
    start = max(0, at - _LEAD_CHARACTERS)
    before = text[start:at].rpartition("\n")
    return (bool(before[1]) or start == 0) and not before[2].strip()


def _next(word: str) -> set[str]:
    """What can follow a marker: 2 after 1, b after a, ii after i."""
    if word.isdigit():
        return {str(int(word) + 1)}
    following = {chr(ord(word) + 1)} if len(word) == 1 else set()
    if word.lower() in _ROMAN[:-1]:
        roman = _ROMAN[_ROMAN.index(word.lower()) + 1]
        following.add(roman if word.islower() else roman.upper())
    return following
