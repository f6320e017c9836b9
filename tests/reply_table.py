"""The table of replies of `docs/replies.md`: what a model writes, and what happens.

`python tests/reply_table.py` writes the page again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "replies.md"
OF_MODELS = Path(__file__).with_name("written_replies.json")
"""Replies in the forms of many models."""

VARIABLES = 'total, x = 42, 5\nnames, r = ["Ann", "Bo"], {"a": "one"}'
"""What a cell has set before each reply of the table."""

NOTHING = "neither code nor an answer"
CUT = "inside a code block"
ANSWER_CUT = "inside the answer"
GUESS = "before the code's output was known"
NO_VARIABLE = "There is no variable"
RAISED = "was evaluated as code"
EMPTY = "is empty"
ONLY_THINKING = "only thinking"

SAYS = {
    NOTHING: "The model is asked for code or an answer.",
    CUT: "Nothing runs. The model is asked for a shorter block.",
    ANSWER_CUT: "It is no answer. The model is asked for a shorter one.",
    GUESS: "The answer was written before the code ran, so the model is asked again.",
    NO_VARIABLE: "The model is told that there is no such variable.",
    RAISED: "The model reads the error.",
    ONLY_THINKING: "The model is told that the reply was only thinking.",
    EMPTY: "The model is asked whether it means that; a second one is taken.",
}


@dataclass(frozen=True)
class Row:
    """A reply.

    Attributes:
        says: what is special about it.
        reply: what the model writes.
        runs: the code that runs.
        answer: of the run.
        told: words of the next message to the model.
        finished: whether the model stopped by itself.
        by_code: whether the code gives the answer.
    """

    says: str
    reply: str
    runs: tuple[str, ...] = ()
    answer: str | None = None
    told: str | None = None
    finished: bool = True
    by_code: bool = False


def code(says, reply, *runs):
    return Row(says, reply, runs or ("print(x)",))


def answer(says, reply, text="42"):
    return Row(says, reply, answer=text)


FENCES = [
    code("a marked block", "Look:\n```repl\nprint(x)\n```\nThen I see."),
    code("another mark of Python", "```Python3\nprint(x)\n```"),
    code("braces", "```{.python}\nprint(x)\n```"),
    code("Gemini's mark", "```tool_code\nprint(x)\n```"),
    code("a longer mark", "```python-repl\nprint(x)\n```"),
    code("the language in a line of its own", "```\npython\nprint(x)\n```"),
    code("attributes", "```python title='x.py' {1,2}\nprint(x)\n```"),
    code("two blocks", "```repl\nprint(1)\n```\nand\n```py\nprint(2)\n```", "print(1)", "print(2)"),
    code("tildes", "~~~repl\nprint(x)\n~~~"),
    code("Windows line ends", "```repl\r\nprint(x)\r\n```\r\n", "print(x)\r"),
    code("in a list, indented by four", "1. Look:\n\n    ```python\n    print(x)\n    ```", "print(x)"),
    code("indented by a tab", "- Look:\n\t```python\n\tif x:\n\t\tprint(x)\n\t```", "if x:\n\tprint(x)"),
    code("indented fence, code at the margin", "    ```python\nprint(x)\n    ```"),
    code("a byte order mark before the fence", "\ufeff```python\nprint(x)\n```"),
    code("a zero-width space before the fence", "\u200b```python\nprint(x)\n\u200b```"),
    code("words before the fence", "Let me look: ```python\nprint(x)\n```"),
    code("a list item before the fence", "1. ```python\n   print(x)\n   ```"),
    code("quoted", "> ```python\n> print(x)\n> ```"),
    code("only the fence is quoted", "> ```python\nprint(x)\n> ```"),
    code("closed at the end of the code", "```python\nprint(x)```"),
    code("closed at the end of the code, words after", "```python\nprint(x)```\nThat prints `x`."),
    code(
        "closed at the end of the code, another block",
        "```python\nprint(1)```\nand\n```python\nprint(2)\n```",
        "print(1)",
        "print(2)",
    ),
    code("words behind the closing fence", "```python\nprint(x)\n``` That prints it."),
    code("a special token behind the fence", "```python\nprint(x)\n```<|im_end|>"),
    code("another special token", "```python\nprint(x)\n``` </s>"),
    code("a special token instead of the fence", "```python\nprint(x)\n<|im_end|>"),
    code("a special token behind open code", "```python\nprint(x)<|eot_id|>"),
    code("one line", "```python print(x)```"),
    code("one line in a sentence", "I look: ```repl print(x)```."),
    code("code in the line of the fence", "```python print(1)\nprint(x)\n```", "print(1)\nprint(x)"),
    code("an import in the line of the fence", "```python import re\nprint(x)\n```", "import re\nprint(x)"),
    code("never closed", "```python\nprint(x)"),
    code(
        "never closed before the next",
        "```python\nprint(1)\n\n```python\nprint(2)\n```",
        "print(1)\n",
        "print(2)",
    ),
    code("closed by a shorter fence", "````python\nprint(x)\n```"),
    code(
        "a fence in a text of the code",
        '```repl\nq = """\n```json\n{}\n```\n"""\n```',
        'q = """\n```json\n{}\n```\n"""',
    ),
    code("a comment that ends with a fence", "```repl\ny = 1  # in ```\nprint(x)\n```", "y = 1  # in ```\nprint(x)"),
    code("a magic command", "```repl\n%time print(x)\n```", "%time print(x)"),
    Row("cut by the length limit", "```repl\nprint(x", told=CUT, finished=False),
    Row("cut after a whole block", "```repl\ny = 1\n```\n```repl\nprint(y", told=CUT, finished=False),
    code("`<code>`", "<code>print(x)</code>"),
    code("`<code>` over lines", "I look.\n<pre><code>y = x &lt; 9\nprint(y)</code></pre>", "y = x < 9\nprint(y)"),
    code("`<python>`", "<python>\nprint(x)\n</python>"),
    code("`<execute_ipython>`", "<execute_ipython>\nprint(x)\n</execute_ipython>"),
    code("`<|python_tag|>`", "<|python_tag|>print(x)<|eom_id|>"),
    code("`[PYTHON]`", "[PYTHON]\nprint(x)\n[/PYTHON]"),
    code(
        "a session with its output",
        "```pycon\n>>> for n in names:\n...     print(n)\n...\nAnn\nBo\n>>> print(x)\n5\n```",
        "for n in names:\n    print(n)\n\nprint(x)",
    ),
    code("a session, marked as Python", "```python\n>>> print(x)\n5\n```"),
    Row("another language", "```json\n{}\n```", told=NOTHING),
    Row("a shell's block", "```bash\nls\n```", told=NOTHING),
]

UNTAGGED = [
    code("an unmarked block of Python", "I look:\n```\nprint(x)\n```"),
    code("an unmarked assignment", "```\ny = x\n```", "y = x"),
    code("unmarked, with the answer in it", "```\ny = x\nprint(y)\n```\nThen I know.", "y = x\nprint(y)"),
    code("unmarked, the input alone", "I look:\n```\ncontext\n```", "context"),
    code("unmarked, on one line", "```print(x)```"),
    code("unmarked, never closed", "```\nprint(x)"),
    code("unmarked, quoted", "> ```\n> print(x)\n> ```"),
    code("marked beside unmarked: the marked one", "```\nprint(1)\n```\n```repl\nprint(x)\n```"),
    code("unmarked after JSON", '```json\n{"a": 1}\n```\n```\nprint(x)\n```'),
    Row("unmarked, cut", "```\nprint(len(names)", told=NOTHING, finished=False),
    Row("an unmarked answer", "The result:\n```\n42\n```", told=NOTHING),
    Row("unmarked words", "```\nAlice was here\n```", told=NOTHING),
    Row("an unmarked name", "```\nAlice\n```", told=NOTHING),
    Row("unmarked data", '```\n{"a": [1, 2], "b": true}\n```', told=NOTHING),
    Row("an unmarked output", "```\ntotal: 42\n```", told=NOTHING),
    Row("an unmarked comment", "```\n# nothing yet\n```", told=NOTHING),
    answer("an unmarked output beside an answer", "I saw\n```\ntotal = 42\n```\nFINAL(42)"),
    answer("an unmarked record beside an answer", "I saw\n```\nPoint(x=1)\n```\nFINAL(42)"),
    Row("unmarked code beside a guess", "```\nprint(x)\n```\nFINAL(17)", runs=("print(x)",), told=GUESS),
    Row(
        "unmarked code beside a variable",
        "```\ny = x + 1\nprint(y)\n```\nFINAL_VAR(y)",
        runs=("y = x + 1\nprint(y)",),
        answer="6",
    ),
]

THOUGHT = "FINAL(no)\n```repl\n1 / 0\n```\n"
THINKING = [
    *(
        answer(f"`{opens}`", f"{opens}\n{THOUGHT}{closes}\nFINAL(42)")
        for opens, closes in [
            ("<think>", "</think>"),
            ("<Thinking>", "</Thinking>"),
            ("<thought>", "</thought>"),
            ("<reasoning>", "</reasoning>"),
            ("<reflection>", "</reflection>"),
            ("<scratchpad>", "</scratchpad>"),
            ("<seed:think>", "</seed:think>"),
            ("<thinking>", "</thinking>"),
            ("<inner_thoughts>", "</inner_thoughts>"),
            ("<think lang='en'>", "</think>"),
            ("[THINK]", "[/THINK]"),
            ("[think]", "[/think]"),
            ("<|begin_of_thought|>", "<|end_of_thought|>"),
            ("<|START_THINKING|>", "<|END_THINKING|>"),
            ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
            ("<thinking>", "</think>"),
        ]
    ),
    answer(
        "channels (harmony)",
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>FINAL(42)<|return|>",
    ),
    answer("a final channel alone", "<|channel|>final<|message|>FINAL(42)"),
    code(
        "code in the final channel",
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>\n```repl\nprint(x)\n```",
    ),
    code(
        "code in a channel of commentary",
        "<|channel|>analysis<|message|>Hm. FINAL(no)<|end|><|start|>assistant<|channel|>commentary<|message|>"
        "```repl\nprint(x)\n```<|end|>",
    ),
    answer("channels without their tokens", "analysisWe think.\nFINAL(no)\nassistantfinalFINAL(42)"),
    answer("in the middle of a line", "Hm. <think>\nFINAL(no)\n</think>\nFINAL(42)"),
    code("a fence behind a closing tag", "[THINK]hm ```python\n1 / 0\n```[/THINK]```python\nprint(x)\n```"),
    code("a fence behind another closing tag", "<think>hm ```python\n1 / 0\n```</think> ```python\nprint(x)\n```"),
    answer("two thoughts", "<think>\nFINAL(no)\n</think>\n<think>\nFINAL(never)\n</think>\nFINAL(42)"),
    answer("a closing tag alone", f"I try.\n{THOUGHT}</think>\n\nFINAL(42)"),
    answer("a closing tag behind words", "It may be FINAL(no).</think>FINAL(42)"),
    answer("a closing tag alone, in brackets", f"{THOUGHT}[/THINK]FINAL(42)"),
    answer("an open block in a thought", "<think>\n```python\n1 / 0\n</think>\nFINAL(42)"),
    answer("an open block before a closing tag alone", "```python\nlet me try (\n</think>\nFINAL(42)"),
    Row("never closed", "<think>\nFINAL(no)", told=NOTHING),
    Row("closed after everything", "FINAL(no)\n</think>", told=NOTHING),
    Row("never closed, in brackets", "[THINK]\nFINAL(no)", told=NOTHING),
    Row("never closed, with code", "<thought>\n```repl\n1 / 0\n```", told=NOTHING),
    code("code after it", f"<think>\n{THOUGHT}</think>\n```repl\nprint(x)\n```"),
    code("a fence before the closing tag alone", "I look ```</think>```python\nprint(x)\n```"),
    code("code in the line of the closing tag", "I look.</think>```repl\nprint(x)\n```"),
    code(
        "a tag in a string of the code",
        "```repl\ny = 'a</think>b'.partition('</think>')\n```",
        "y = 'a</think>b'.partition('</think>')",
    ),
    code(
        "tags in a prompt of the code",
        '```repl\nq = """\n<think>\nhm\n</think>\nAnswer."""\n```',
        'q = """\n<think>\nhm\n</think>\nAnswer."""',
    ),
    code(
        "a tag in a comment of the code", "```repl\n# </think> ends it\nprint(x)\n```", "# </think> ends it\nprint(x)"
    ),
    answer("a quoted tag", "The text ends with `</think>`.\nFINAL(42)"),
    answer("a tag in parentheses", "It ends (</think>) here.\nFINAL(42)"),
    answer("a title in brackets", "[Analysis]\nI counted.\nFINAL(42)"),
    answer("`<unused94>`", f"<unused94>thought\n{THOUGHT}<unused95>\nFINAL(42)"),
    answer("other brackets", f"\u2039think\u203a\n{THOUGHT}\u2039/think\u203a\nFINAL(42)"),
    answer("escaped", f"&lt;think&gt;\n{THOUGHT}&lt;/think&gt;\nFINAL(42)"),
    answer("attributes over two lines", f"<think id=1\n>\n{THOUGHT}</think>\nFINAL(42)"),
    answer(
        "channels without their ends",
        "<|start|>assistant<|channel|>analysis<|message|>FINAL(no)<|channel|>final<|message|>FINAL(42)",
    ),
    answer("a tag in the answer", "FINAL(The tags are <think> and </think>)", "The tags are <think> and </think>"),
]

QUOTED_CODE = 'FINAL("""Use this:\n```python\n1 / 0\n```\n""")'

ELEMENTS = [
    *(
        answer(f"`{opens}`", f"{opens}\n{THOUGHT}{closes}\nFINAL(42)")
        for opens, closes in [
            ("<seed:cot_budget_reflect>", "</seed:cot_budget_reflect>"),
            ("<reason>", "</reason>"),
            ("<cot>", "</cot>"),
            ("<reflect>", "</reflect>"),
            ("<internal>", "</internal>"),
            ("<ponder>", "</ponder>"),
            ("<brainstorm>", "</brainstorm>"),
            ("[plan]", "[/plan]"),
            ("<|begin_of_plan|>", "<|end_of_plan|>"),
        ]
    ),
    answer("any tag around a first answer", "<workings>It may be\nFINAL(no)\n</workings>\nFINAL(42)"),
    code("code in a plan, and after it", "<plan>\n```repl\nold()\n```\n</plan>\n```repl\nprint(x)\n```"),
    code("code in a plan alone", "<plan>\n```repl\nprint(x)\n```\n</plan>"),
    code(
        "code in tags of steps", "<a1>\n```repl\nx = 1\n```\n</a1>\n<a2>\n```repl\nx = 2\n```\n</a2>", "x = 1", "x = 2"
    ),
    answer("a tag around the answer", "<answer>\nFINAL(42)\n</answer>\nI gave FINAL(42)."),
    answer("a tag of any name around the answer", "<total>\nFINAL(42)\n</total>\nThat is it."),
    answer("a plan that is not closed", "<plan>\nI count.\nFINAL(42)"),
    answer("a plan in the answer", "FINAL(<plan>\none\n</plan>)", "<plan>\none\n</plan>"),
]
"""Elements of reasoning that a user may have asked for, and others."""

ANSWERS = [
    answer("a number", "FINAL(42)"),
    answer("words", "FINAL(two words)", "two words"),
    answer("words with parentheses", "FINAL(The total (net) is 5)", "The total (net) is 5"),
    answer("a variable", "FINAL(total)"),
    answer("a variable in backticks", "FINAL(`total`)"),
    answer("FINAL_VAR", "FINAL_VAR(total)"),
    answer("FINAL_VAR, quoted", 'FINAL_VAR("total")'),
    answer("a quoted text", "FINAL('it ends with :)')", "it ends with :)"),
    answer("triple quotes", 'FINAL("""one\n(two\nthree""")', "one\n(two\nthree"),
    answer("code in triple quotes", QUOTED_CODE, "Use this:\n```python\n1 / 0\n```\n"),
    answer(
        "code in triple quotes, in a sentence", f"The answer is {QUOTED_CODE}", "Use this:\n```python\n1 / 0\n```\n"
    ),
    answer(
        "quoted code with quotes",
        'FINAL("""a\n```python\nprint("""x""")\n```\nb""")',
        'a\n```python\nprint("""x""")\n```\nb',
    ),
    answer("code as the answer", "FINAL(\n```python\n1 / 0\n```\n)", "```python\n1 / 0\n```"),
    answer("code in the answer", "FINAL(Use:\n```repl\n1 / 0\n```\nand go)", "Use:\n```repl\n1 / 0\n```\nand go"),
    Row("an open answer before code", "FINAL(17\n```repl\nprint(x)\n```", runs=("print(x)",), told=GUESS),
    answer("quotes within quotes", 'FINAL("He said "no" to it")', 'He said "no" to it'),
    answer("a numbered list", "FINAL(1) apples\n2) pears)", "1) apples\n2) pears"),
    answer("a numbered list in a sentence", "FINAL(Two: 1) apples, 2) pears)", "Two: 1) apples, 2) pears"),
    answer("a list of letters", "FINAL(Do:\na) this\nb) that\n)", "Do:\na) this\nb) that"),
    answer("a reference to a list", "FINAL(It is (a) because b) holds)", "It is (a) because b) holds"),
    answer("a parenthesis too many", "FINAL(Rows 1-5) of the table)", "Rows 1-5) of the table"),
    answer("a parenthesis too many at the end", "FINAL(42))"),
    answer("a smiley", "FINAL(It works :) at last)", "It works :) at last"),
    answer("a smiley at the end", "FINAL(It works :-))", "It works :-)"),
    answer("a sad smiley", "FINAL(No luck :( today)\nSorry (really).", "No luck :( today"),
    answer("an interval", "FINAL(All of [0, 1) and (2, 3] counts)\nDone.", "All of [0, 1) and (2, 3] counts"),
    answer("a parenthesis in code", "FINAL(Type `)` or `f(` first)", "Type `)` or `f(` first"),
    answer("a formula", "FINAL(f (x) = (a + b)(c - d))", "f (x) = (a + b)(c - d)"),
    answer("words after it", "FINAL(42) is the answer (I think)."),
    answer("words with a smiley after it", "FINAL(42)\nI am glad :)"),
    answer("never closed", "FINAL(42"),
    answer("a quoted text that is not closed", 'FINAL("two words)', "two words"),
    Row("cut by the length limit", "FINAL(The first of the reasons is", told=ANSWER_CUT, finished=False),
    Row("a list that is cut", "FINAL(1) apples\n2) pe", told=ANSWER_CUT, finished=False),
    Row("a quoted text that is cut", 'FINAL("It (really) is', told=ANSWER_CUT, finished=False),
    Row("cut in its line", "FINAL(Rows 1-5) of the ta", told=ANSWER_CUT, finished=False),
    Row("whole, then cut", "FINAL(42)\nI know this bec", answer="42", finished=False),
    Row("data that is cut", 'FINAL({"note": "see section 2)', told=ANSWER_CUT, finished=False),
    Row("a list of data that is cut", 'FINAL(["Ann (35)", "Bob (41)', told=ANSWER_CUT, finished=False),
    Row("a sum of texts that is cut", "FINAL('a' + str(x) + 'b)", told=ANSWER_CUT, finished=False),
    Row("triple quotes that are cut", 'FINAL("""a "b)', told=ANSWER_CUT, finished=False),
    Row("data, then cut", 'FINAL(["It\'s (35)"])\nI "kn', answer='["It\'s (35)"]', finished=False),
    Row("words with an apostrophe, then cut", "FINAL((a) It's so)\nI kn", answer="(a) It's so", finished=False),
    answer("bold", "**FINAL(42)**"),
    answer("the name in bold", "**FINAL**(42)"),
    answer("bold within", "FINAL(**42**)"),
    answer("boxed", "$\\boxed{FINAL(42)}$"),
    answer("boxed within", "FINAL(\\boxed{42})"),
    answer("a heading", "# FINAL(42)"),
    answer("a list item", "- FINAL(42)"),
    answer("quoted as Markdown", "> FINAL(42)"),
    answer("code", "`FINAL(42)`"),
    answer("a label", "**Answer:** FINAL(42)"),
    answer("at the end of a sentence", "So the answer is FINAL(42)."),
    answer("in a sentence, and more after it", "The answer is FINAL(42). I am sure of it."),
    answer("behind a sentence", "I have counted twice. FINAL(42)"),
    answer("behind a sign", "\u2705 FINAL(42)"),
    answer("a fence around it", "```\nFINAL(42)\n```"),
    answer("a text fence around it", "```text\nFINAL(42)\n```"),
    answer("a special token behind it", "FINAL(42)<|im_end|>"),
    answer("another case", "Final(42)"),
    answer("lower case", "final(42)"),
    answer("behind the words of the prompt", "In a cell: `FINAL(total)`"),
    Row("the prompt's line itself", '- In a cell: `FINAL(value)`, or `FINAL_VAR("name")`.', told=NOTHING),
    Row("the prompt's example behind its words", "In a cell: `FINAL(value)`", told=NO_VARIABLE),
    answer("another spelling of FINAL_VAR", '`FinalVar("total")`'),
    answer("another case in a sentence", "So the answer is Final(42)."),
    answer("stated in a line", "I have counted.\nFinal answer: 42"),
    answer("stated in bold", "**Final Answer**: 42"),
    answer("stated, all bold", "**Final answer: 42**"),
    answer("stated above the answer", "**Final Answer:**\n\n42"),
    answer("a heading above the answer", "I have counted.\n\n## Final Answer\n42"),
    answer("a bold heading above the answer", "**Final Answer**\n\n42"),
    Row("a heading above nothing", "I have counted.\n\n## Final Answer\n", told=NOTHING),
    answer("stated twice", "Final answer: 41\nNo.\nFinal answer: 42\n\nI hope this helps."),
    answer("a stated variable", "The final answer is: total"),
    answer("a box alone", "I have counted.\n\n$\\boxed{42}$"),
    answer("a box in brackets", "\\[ \\boxed{42} \\]"),
    code("stated beside code", "```repl\nprint(x)\n```\nFinal answer: 17"),
    Row("stated, and cut", "Final answer: the first of the", told=ANSWER_CUT, finished=False),
    Row("a promise", "I will give the final answer: later.", told=NOTHING),
    answer("words in a marked block", "```repl\nFINAL(Ines Duarte)\n```", "Ines Duarte"),
    answer("a sentence in a marked block", "```python\nFINAL(The total is 42.)```", "The total is 42."),
    Row(
        "words in a block behind code",
        "```repl\nprint(x)\n```\n```repl\nFINAL(two words)\n```",
        runs=("print(x)",),
        told=GUESS,
    ),
    answer(
        "a parenthesis too few, in its paragraph",
        "FINAL(The range is (1, 2 and so on)\n\nI hope that (really) helps.",
        "The range is (1, 2 and so on",
    ),
    answer("special tokens around it", "[/INST] FINAL(42)</s>"),
    answer("a correction", "FINAL(41)\nNo, wait. Correction:\nFINAL(42)"),
    answer("a mention behind it", "FINAL(42)\nI use FINAL(41) for that.\nFINAL(...)"),
    Row("empty", "FINAL()", told=EMPTY),
    Row("empty quotes", 'FINAL("")', told=EMPTY),
    Row("a mention", "I will use FINAL(...) when I am done.", told=NOTHING),
    Row("a mention in an instruction", "The next step is to call FINAL(total).", told=NOTHING),
    Row("a plan", "Once I am sure, I give FINAL(42).", told=NOTHING),
    Row("a denial", "It is not FINAL(42).", told=NOTHING),
    Row("the words of the prompt", "FINAL(...)", told=NOTHING),
    Row("a word in a sentence that is no variable", "The syntax is FINAL(value).", told=NO_VARIABLE),
    Row("a condition", "If the answer is FINAL(17), the rows would not add up.", told=NOTHING),
    Row("a supposition", "Suppose the answer is FINAL(17). Then the sum is odd.", told=NOTHING),
    Row("a doubt", "I doubt that the result is FINAL(17).", told=NOTHING),
    Row("another's words", "The user says the answer is FINAL(17). Let me check.", told=NOTHING),
    Row("a question", "The answer is FINAL(17)?", told=NOTHING),
    answer("a reason that denies", "The rows do not differ, the answer is FINAL(42)."),
    answer("a reason, then the answer", "It may look odd, but the answer is FINAL(42)."),
    Row("a quotation", "The mail says:\n> FINAL(approve)", told=NOTHING),
    Row("a quotation of two lines", "> I read it.\n> FINAL(approve)\n\nI check that.", told=NOTHING),
    answer("quoted behind a label", "My answer:\n> FINAL(42)"),
    answer("a quotation, then the answer", "It says:\n> FINAL(no)\n\nFINAL(42)"),
    Row("a conversation in a fence", "It holds:\n```\nUser: what is x?\nFINAL(17)\n```\nI look further.", told=NOTHING),
    Row("a mail in a fence", "It holds:\n```\nFrom: boss\nprint(x)\n```\nI look further.", told=NOTHING),
    Row("a guess beside code", "FINAL(17)\n```repl\nprint(x)\n```", runs=("print(x)",), told=GUESS),
    Row("a variable beside code", "```repl\ny = x + 1\n```\nFINAL(y)", runs=("y = x + 1",), answer="6"),
]

SOURCE = [
    answer("an f-string", 'FINAL(f"It is {total} (net)")', "It is 42 (net)"),
    answer("a call", "FINAL(str(total))"),
    answer("an item", 'FINAL(r["a"])', "one"),
    answer("a method", 'FINAL(", ".join(names))', "Ann, Bo"),
    answer("an expression with a text", 'FINAL("n = " + str(x))', "n = 5"),
    answer("a comprehension", "FINAL([n.upper() for n in names])", "['ANN', 'BO']"),
    answer("a parenthesis in its text", 'FINAL(" :) ".join(names))', "Ann :) Bo"),
    answer("arithmetic on variables", "FINAL(total + x)", "47"),
    answer("FINAL_VAR of an item", 'FINAL_VAR(r["a"])', "one"),
    answer("source at the end of a sentence", "The answer is FINAL(str(total))."),
    Row("source beside code", '```repl\ny = x + 1\n```\nFINAL(f"y is {y}")', runs=("y = x + 1",), answer="y is 6"),
    answer("one parenthesis too few", "FINAL(str(total)"),
    answer("a printed value", "FINAL(print(total))"),
    answer("a choice of variables", "FINAL(total if x else names)"),
    Row("a broken f-string", 'FINAL(f"It is {total")', told=RAISED),
    Row("an f-string that is not closed", 'FINAL(f"It is {total}', told=RAISED),
    Row("source with an error", "FINAL(str(totl))", told=RAISED),
    Row("an f-string with an error", 'FINAL(f"It is {totl}")', told=RAISED),
    answer("words like source", "FINAL(Mercury (planet))", "Mercury (planet)"),
    answer("words like a call", "FINAL(O(n))", "O(n)"),
    answer("words like a division", "FINAL(TCP/IP)", "TCP/IP"),
    answer("words like an attribute", "FINAL(example.com)", "example.com"),
    answer("a date", "FINAL(2024-11-12)", "2024-11-12"),
    answer("words like a list", "FINAL(Paris, London)", "Paris, London"),
    answer("data", 'FINAL({"a": [1, true]})', '{"a": [1, true]}'),
    answer("words like a negation", "FINAL(not found)", "not found"),
    answer("words like a comparison", "FINAL(x is 5)", "x is 5"),
    answer("words like a condition", "FINAL(total and names)", "total and names"),
    answer("words with a quoted name", 'FINAL(Ann in "Berlin")', 'Ann in "Berlin"'),
    answer("a comparison of variables", "FINAL(x > 3)", "True"),
    answer("a text searched for in a variable", 'FINAL("Ann" in names)', "True"),
]

TOLD = {"NOTHING": NOTHING, "CUT": CUT, "ANSWER_CUT": ANSWER_CUT, "NO_VARIABLE": NO_VARIABLE, "GUESS": GUESS}
TOLD |= {"EMPTY": EMPTY, "ONLY_THINKING": ONLY_THINKING}


def of_models():
    """The rows by title of `OF_MODELS`."""
    return {
        title: [Row(**one | {"runs": tuple(one.get("runs", ())), "told": TOLD.get(one.get("told"))}) for one in rows]
        for title, rows in json.loads(OF_MODELS.read_text("utf-8")).items()
    }


MORE = of_models()
TABLE = {
    "Fences": [*FENCES, *MORE["Fences"]],
    "Blocks without a language": UNTAGGED,
    "Programs without a fence": MORE["Programs without a fence"],
    "Calls of tools": MORE["Calls of tools"],
    "Thinking": [*THINKING, *ELEMENTS, *MORE["Thinking"]],
    "Answers": [*ANSWERS, *MORE["Answers"]],
    "Source as an answer": SOURCE,
    "Other languages and signs": MORE["Other languages and signs"],
    "Cut replies": MORE["Cut replies"],
}
ROWS = [row for rows in TABLE.values() for row in rows]


def kind(row):
    """What is done with a row: rows of a kind take the same way through a run."""
    return row.told, len(row.runs), row.answer is not None, row in SOURCE, row.finished


OF_EACH_KIND = list({kind(row): row for row in ROWS}.values())

# -- the page


SHOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "\\r", "\t": "\\t", "\ufeff": "\\ufeff", "\u200b": "\\u200b"}
ESCAPED = re.compile(r"[\\|*_`\[\]$~{}]")


def cell(text):
    """Text as code in a cell of a Markdown table."""
    shown = "".join(SHOWN.get(character, character) for character in text.strip("\n"))
    shown = ESCAPED.sub(lambda found: f"&#{ord(found[0])};", shown)
    return f"<code>{shown.replace('  ', '&nbsp;&nbsp;').replace(chr(10), '<br>')}</code>"


def outcome(row):
    parts = [f"Runs {' and '.join(map(cell, row.runs))}." if row.runs else ""]
    parts.append(f"The answer is {cell(row.answer)}." if row.answer is not None else "")
    parts.append(SAYS[row.told] if row.told else "")
    return " ".join(filter(None, parts))


def page(intro):
    """The page: what stands before its first table, and the tables."""
    lines = [intro.rstrip(), ""]
    for title, rows in TABLE.items():
        lines += [f"## {title}", "", "| | the model writes | what happens |", "|---|---|---|"]
        for row in rows:
            cut = "" if row.finished else " (cut)"
            lines.append(f"| {row.says} | {cell(row.reply)}{cut} | {outcome(row)} |")
        lines.append("")
    return "\n".join(lines)


def introduction():
    return PAGE.read_text("utf-8").partition("\n## Fences\n")[0]


if __name__ == "__main__":
    PAGE.write_text(page(introduction()), "utf-8")
