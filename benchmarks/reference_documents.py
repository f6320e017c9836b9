"""Run the Python blocks of the reference's documents against servers of this machine.

    python benchmarks/reference_documents.py CHECKOUT

CHECKOUT is a checkout of github.com/alexzhang13/rlm. The blocks of a document run one after the other in one namespace,
which has the names that the documents leave to the reader (`prompt`, `my_fetch_fn`, ...). Only addresses of servers are
replaced, and the dots that stand for something left out. An `RLM` that a block makes and does not use answers a
question. Blocks with calls of a REPL run in a `LocalREPL`. Blocks that are no Python, such as signatures, are counted.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_differences import Report
from reference_examples import EMULATORS, Example, LoopbackProvider, surroundings

from rlm import RLM
from rlm.clients import get_client
from rlm.core.lm_handler import LMHandler
from rlm.environments import LocalREPL
from rlm.logger import RLMLogger

_FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMPONENT = re.compile(r"<CodeBlock (?!language)[^>]*?code=\{`(.*?)`\}", re.DOTALL)
_CALLS = re.compile(r"^(\w+ = )?(llm|rlm)_query", re.MULTILINE)
_DOTS = (
    ('RLM(\n    environment="..."', 'RLM(**GIVEN, environment="local"'),
    ("RLM(...", "RLM(**GIVEN"),
    ("(...)", '("...")'),
    ("{...}", "{}"),
    ("[...]", '["..."]'),
)
_SERVERS = re.compile(r"https?://(localhost:8000|api\.openai\.com)/v1")


def blocks(file: Path) -> Iterator[str]:
    """The Python blocks of a page."""
    text = file.read_text("utf-8")
    yield from (_FENCE if file.suffix == ".md" else _COMPONENT).findall(text)


def pages(checkout: Path) -> list[Path]:
    """The documents of a checkout."""
    docs = checkout / "docs"
    return [
        checkout / "README.md",
        checkout / "AGENTS.md",
        *sorted(docs.rglob("*.md")),
        *sorted(docs.rglob("page.tsx")),
    ]


def names(base_url: str) -> dict[str, Any]:
    """What a reader has: the names that the documents use without making them."""
    given = {"backend": "openai", "backend_kwargs": {"model_name": "gpt-5-mini"}}
    texts = dict.fromkeys(["prompt", "long_document", "massive_document", "context", "document", "my_text"], "A text.")
    functions = dict.fromkeys(["my_fetch_function", "calc_function", "my_fetch_fn", "my_function"], len)
    known = {
        "os": os,
        "json": json,
        "Any": Any,
        "RLM": RLM,
        "RLMLogger": RLMLogger,
        "GIVEN": given,
        "base_url": base_url,
    }
    known["dataclass"] = dataclass
    known["rlm"] = RLM(**given)
    known["logger"] = RLMLogger()
    known["result"] = known["rlm"].completion("A question.")
    return {**known, **texts, **functions}


def run(code: str, namespace: dict[str, Any]) -> str:
    """Run a block. Returns what is wrong with it; empty: nothing."""
    for old, new in _DOTS:
        code = code.replace(old, new)
    code = _SERVERS.sub(namespace["base_url"], code)
    before = namespace["rlm"]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if _CALLS.search(code):
                return _run_in_repl(code)
            exec(compile(code, "block", "exec"), namespace)  # the reader's own checkout
            if namespace["rlm"] is not before and ".completion(" not in code:
                namespace["rlm"].completion("A question.")
    except Exception as error:  # noqa: BLE001 (it is what the block does)
        return traceback.format_exception_only(error)[-1].strip()
    return ""


def _run_in_repl(code: str) -> str:
    tools = {"fetch_data": str, "process": str, "chunk": "A text."}
    with (
        LMHandler(get_client("openai", {"model_name": "gpt-5-mini"})) as handler,
        LocalREPL(handler.address, {"url": "An address."}, custom_tools=tools) as repl,
    ):
        return repl.execute_code(code).stderr.rpartition("\n")[2]


def is_python(code: str) -> bool:
    """Whether a block is a program, and not data in JSON."""
    with contextlib.suppress(ValueError):
        json.loads(code)
        return False
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def main(checkout: str) -> int:
    """Run the blocks of a checkout."""
    report, here = Report(), Path(checkout).resolve()
    example = Example((), places=tuple(EMULATORS))
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        LoopbackProvider(lambda _: "```repl\nFINAL('done')\n```") as provider,
        surroundings(example, provider, Path(folder)) as env,
    ):
        keys = {f"{name}_API_KEY": "loopback-key" for name in ("ANTHROPIC", "OPENROUTER", "VERCEL", "AI_GATEWAY")}
        keys |= {"OPENROUTER_BASE_URL": provider.base_url, "ANTHROPIC_BASE_URL": provider.base_url.removesuffix("/v1")}
        os.environ.update(env | keys)
        for page in pages(here):
            namespace = names(provider.base_url)
            for number, code in enumerate(blocks(page), 1):
                name = f"{page.relative_to(here)}#{number}"
                if not is_python(code):
                    report.counts["no Python: a signature, or a sketch with dots"] += 1
                    continue
                wrong = run(code, namespace)
                report.add(name, "failed" if wrong else "passed", wrong)
    print(*report.lines({str(page.relative_to(here)) for page in pages(here)}), sep="\n")
    return int(not report.is_good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
