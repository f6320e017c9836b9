"""The profile for small local models, tuned with Qwen2.5-Coder-1.5B-Instruct (4 bits, temperature 0, 8,192 tokens).

A small model copies the form of what it sees, and most of all the last example. So the system message is short, the
work is shown as examples that fit the question, each cell begins with a comment that says what it computes (the only
planning such a model does), and the opening shows real pieces of the context.
"""

from __future__ import annotations

from rlm_kernel.prompts.few_shot import load
from rlm_kernel.prompts.profile import PromptProfile

_SYSTEM = """\
You answer a question about data that is too long to show. The data is the Python variable `context`. You work step \
by step in a Python notebook.
Reply with exactly one code block per turn:
```repl
# what this code computes
...python code...
```
The next message shows its output; variables stay. After an error, write corrected code. When an output shows the \
answer, reply with one line only: FINAL(answer)
What a text means is a question for llm_query_batched(prompts), which returns one answer for each prompt."""

# A small model often ends a cell with an assignment and then guesses the value: show that value too.
_SETUP = """\
import ast, collections, csv, io, json, math, re, warnings
warnings.simplefilter("ignore", SyntaxWarning)
get_ipython().ast_node_interactivity = "last_expr_or_assign"
"""

_HINTS = (
    (r"^ModuleNotFoundError", "That package is not installed. Use ast, collections, csv, json, math and re only."),
    (r"'NoneType' object", "The pattern did not match there. Test the match with `if m:` before you use it."),
    (r"invalid literal|could not convert", "That text is not a number. Cut the number out with re.search."),
    (r"unpack", "Not every line has so many fields. Skip the others, or use re.search."),
    (r"^IndexError", "That list is shorter. Test its length before you take an item."),
    (r"^KeyError", "There is no such key. Print some keys first."),
    (r"'dict' object has no attribute", "That is a dict. Loop over it with: for key, value in context.items()"),
    (r"'list' object has no attribute", "That is a list. Loop over it with: for item in context"),
    (r"^OSError|^FileNotFoundError", "There are no files to open. The text is in `context` itself."),
    (r"^SyntaxError", "Write the code again with correct syntax."),
)

SMALL = PromptProfile(
    name="small",
    system=_SYSTEM,
    examples=(*load("meaning"), *load("files"), *load("records"), *load("long_text")),
    shown_examples=3,
    reply_tokens=400,
    sub_reply_tokens=200,
    output_characters=1_500,
    preview_characters=300,
    question_lines=3,
    setup_code=_SETUP,
    hints=_HINTS,
    style="brief",
)
