"""`rlm demo --scripted`: replies that were written in advance, in place of a model.

Their code computes the answers over `context` in the kernel. The sub-model is scripted too: it judges an excerpt by the
words in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlm_kernel.cli.demo_questions import CLASS, JUDGED, QUESTIONS, Question
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.types import Message

_SECONDS = 0.3
_RULE = "\n-----\n"
_SIGNS = ("client class", "rfc", "protocol")

_LOOK = """\
I look at the context first.

```repl
print(type(context), len(context), sum(len(source) for source in context.values()))
list(context)[:5]
```
"""

_FIND_CLASS = f"""\
It maps paths to sources. A class statement is at the start of a line; I search for it.

```repl
import re
found = [path for path, source in context.items() if re.search(r"^\\s*class {CLASS}\\b", source, re.M)]
found
```
"""

_COUNT_FUNCTIONS = """\
A definition is a line that begins with `def` or `async def`; I count them in each file.

```repl
import re
counts = {p: len(re.findall(r"^\\s*(?:async )?def \\w", s, re.M)) for p, s in context.items()}
most = max(counts, key=counts.get)
counts[most], most
```
"""

_JUDGE = f"""\
This takes a judgement for each file: one sub-call for each of them.

```repl
paths = {list(JUDGED)}
question = "Is this module a client for a network protocol? Answer yes or no."
answers = llm_query_batched([question + {_RULE!r} + context[path][:500] for path in paths])
clients = ", ".join(path for path, answer in zip(paths, answers) if answer.lower().startswith("yes"))
clients
```
"""

_REPLIES = (
    (_LOOK, _FIND_CLASS, "FINAL_VAR(found)"),
    (_LOOK, _COUNT_FUNCTIONS, "FINAL_VAR(most)"),
    (_LOOK, _JUDGE, "FINAL_VAR(clients)"),
)


def root(question: Question) -> ScriptedLM:
    """The root model for one question."""
    return ScriptedLM(_REPLIES[QUESTIONS.index(question)], model="scripted", delay=_SECONDS)


def sub_model() -> ScriptedLM:
    """The model of the sub-calls."""
    return ScriptedLM(_judge, model="scripted-judge", delay=_SECONDS)


def _judge(messages: Sequence[Message]) -> str:
    excerpt = messages[-1]["content"].partition(_RULE)[2].lower()
    return "yes" if any(sign in excerpt for sign in _SIGNS) else "no"
