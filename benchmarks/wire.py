"""Compare the requests of the reference and of ours with `prompts="reference:PATH"`: what a provider receives of a run.

    python benchmarks/wire.py --reference PYTHON [--words PATH] [--json FILE]

PYTHON is an interpreter in which the distribution `rlms` is installed. PATH is a copy of it (default: where PYTHON has
it). A provider on loopback gives both the same ten replies and records the body of every request. Ends with 1 if a
body differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODEL = "mit-oasys/rlm-qwen3-30b-a3b-v0.1"
QUESTION = 'How many lines hold "green", and which {braces} are there?'
CONTEXT = "\n".join(f"line {number}: {'green' if number % 7 == 0 else 'blue'} ünïcode" for number in range(3_000))


def _reply(words: str, *cells: str, language: str = "repl") -> str:
    return "\n".join([words, *(f"```{language}\n{cell}\n```" for cell in cells)])


REPLIES = (
    _reply("I look first.", "print(type(context), len(context))\nprint(context[:200])"),
    _reply("Lines.", "lines = context.splitlines()\ncount = sum('green' in line for line in lines)\nprint(count)"),
    _reply("All of it, which is too much.", "for line in context.splitlines():\n    print(line)"),
    _reply("A mistake.", "print('before')\nlines[99_999]"),
    _reply("The first of two fails.", "print(missing)", "name, kinds = 'x', {'a': 1}\nprint(kinds)"),
    _reply(
        "Sub-calls.",
        "said = llm_query('Say yes: ' + lines[0])\nprint(said)\nmany = llm_query_batched(['one', 'two'])\nprint(many)",
    ),
    "Only words this time; FINAL(7) is no answer here.",
    _reply(
        "A value that is not printed, and stderr.",
        "import sys\nratio = count / len(lines)\nratio",
        "print('out'); print('err', file=sys.stderr)",
    ),
    _reply("A draft, and broken code.", "answer['content'] = 'draft'", "if True print(1)")
    + _reply("", "print('not for the REPL')", language="python"),
    _reply("", "answer['content'] = f'{count} of {len(lines)}'\nanswer['ready'] = True"),
)
SPOKEN = "The last word."


@dataclass
class Provider:
    """What came in, in order: the bodies of the root model, and those of sub-calls, which come in any order."""

    replies: Sequence[str]
    root: list[dict[str, Any]] = field(default_factory=list)
    sub: list[dict[str, Any]] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)

    def take(self, body: dict[str, Any]) -> str:
        """The reply to a request."""
        with self._lock:
            if body["messages"][0]["role"] != "system":
                self.sub.append(body)
                return f"answer to {len(body['messages'][0]['content'])} characters"
            self.root.append(body)
            return self.replies[len(self.root) - 1] if len(self.root) <= len(self.replies) else SPOKEN


@contextmanager
def serving(provider: Provider) -> Iterator[str]:
    """The URL of a provider on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

        def do_GET(self) -> None:
            provider.other.append(f"GET {self.path}")
            self._send({"object": "list", "data": []})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            message = {"role": "assistant", "content": provider.take(body)}
            self._send(
                {
                    "id": "chatcmpl-1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": body["model"],
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                }
            )

        def _send(self, value: dict[str, Any]) -> None:
            payload = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def requests_of(python: str, replies: Sequence[str], context: Any = CONTEXT, **arguments: Any) -> tuple[Provider, str]:
    """What a side sends, and its answer.

    Args:
        python: its interpreter.
        replies: of the root model.
        context: of the run.
        arguments: of `RLM`, besides the backend.
    """
    provider = Provider(replies)
    with serving(provider) as url, tempfile.TemporaryDirectory() as folder:
        backend = {"model_name": MODEL, "base_url": url, "api_key": "loopback"}
        given = {"backend": "openai", "backend_kwargs": backend, "max_iterations": 12, **arguments}
        options = json.dumps({"arguments": given, "context": context, "question": QUESTION})
        done = subprocess.run(
            [python, HERE / "wire_side.py", options],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=300,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{python} failed:\n{done.stderr[-3_000:]}")
    return provider, json.loads(done.stdout.splitlines()[-1])["answer"]


def differences(ours: Provider, reference: Provider) -> list[str]:
    """What differs in the bodies, one line each: fields, then messages. Sub-calls of a batch come in any order."""
    found = [f"{len(ours.root)} requests of the root model, {len(reference.root)} of the reference's"] * (
        len(ours.root) != len(reference.root)
    )
    pairs = [(f"turn {n}", *pair) for n, pair in enumerate(zip(ours.root, reference.root, strict=False), 1)]
    if (mine := _sorted(ours.sub)) != (theirs := _sorted(reference.sub)):
        found.append(f"sub-calls: {mine} and {theirs}")
    for turn, mine, theirs in pairs:
        for name in sorted({*mine, *theirs} - {"messages"}):
            if mine.get(name) != theirs.get(name):
                found.append(f"{turn}: {name} is {mine.get(name)!r}, the reference's {theirs.get(name)!r}")
        for place in range(max(len(mine["messages"]), len(theirs["messages"]))):
            one, other = (body["messages"][place : place + 1] for body in (mine, theirs))
            if one != other:
                found.append(f"{turn}, message {place}: {one} and {other}")
                break
    return found


def _sorted(bodies: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted(json.dumps(body, sort_keys=True) for body in bodies)


def words_of(python: str) -> str:
    """The folder of the package `rlm` of an interpreter."""
    found = [python, "-c", "import rlm; print(rlm.__path__[0])"]
    return subprocess.run(found, capture_output=True, text=True, check=True, cwd="/").stdout.strip()


def main() -> int:
    """Compare one run, and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--reference", required=True, metavar="PYTHON")
    parser.add_argument("--words", metavar="PATH")
    parser.add_argument("--json", metavar="FILE", help="write all bodies")
    options = parser.parse_args()
    words = options.words or words_of(options.reference)
    reference, theirs = requests_of(options.reference, REPLIES)
    ours, mine = requests_of(sys.executable, REPLIES, prompts=f"reference:{words}")
    found = differences(ours, reference)
    if options.json:
        sides = {"ours": vars(ours), "reference": vars(reference)}
        Path(options.json).write_text(json.dumps(sides, indent=1, default=str), "utf-8")
    print(f"{len(reference.root)} turns, {len(reference.sub)} sub-calls; answers {mine!r} and {theirs!r}")
    print(f"besides: ours {ours.other}, the reference {reference.other}")
    print("\n".join(found) or "All bodies are equal.")
    return bool(found) or mine != theirs


if __name__ == "__main__":
    sys.exit(main())
