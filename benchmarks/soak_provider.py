"""The model provider of `soak.py`: a process of its own that answers, fails by seed, and keeps its own account.

It charges each request that it accepts as much as the engine counts for a call whose reply is lost: every byte is a
token, and every reply has `max_tokens`. So a sum that differs from the engine's means a call that was counted twice or
not at all. It prints its base URL. For a line on standard input it prints its account as a line of JSON; the end of the
input ends it.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from loopback import Fails, Hangs, LoopbackProvider, Request, Says, Step

from rlm_kernel.clients.estimates import bound

TOKEN = 2.0**-20
"""US dollars. A power of two: sums of costs are exact in any order."""

RETRY_AFTER = 0.2
FAULTS = ("429", "500", "hang", "cut reply")
WEIGHTS = (3, 3, 1, 2)
_TASK = re.compile(r"\bQ(\d+)\b")
_PID = re.compile(r"\bpid=(\d+)\b")
_TROUBLE = re.compile(r"Error\b")

ROOT = """```repl
import os
parts = llm_query_batched([f"{0} part {{i}} pid={{os.getpid()}}" for i in range(4)])
child = rlm_query("{0} CHILD: ask once")
one = llm_query(f"{0} one pid={{os.getpid()}}")
print("asked")
```"""
LAST = """```repl
FINAL(f"{0}: {{len(parts)}} {{child}} {{one}}")
```"""
CHILD = """```repl
import os
FINAL(llm_query(f"{0} inner pid={{os.getpid()}}"))
```"""


@dataclass
class Account:
    """What the provider has charged and done.

    Attributes:
        calls: requests that it accepted.
        tokens: of them, charged.
        tasks: tokens by task.
        faults: for each kind of fault, the tokens it cost and the tasks that met it.
        kernels: the task of a kernel, by process id.
    """

    calls: int = 0
    tokens: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    kernels: dict[str, str] = field(default_factory=dict)


class Script:
    """Answers by the text of a request, and fails by the seed and the request, at any time and in any order alike.

    Args:
        seed: of the faults.
        share: of requests that fail.
        delay: seconds of a reply.
    """

    def __init__(self, seed: int, share: float, delay: float) -> None:
        self.account = Account()
        self._seed, self._share, self._delay = seed, share, delay
        self._seen: Counter[str] = Counter()

    def __call__(self, request: Request) -> Step:
        """The step that answers a request."""
        task = found[-1] if (found := _TASK.findall(request.said)) else ""
        if pid := _PID.search(request.prompt):
            self.account.kernels[pid[1]] = f"Q{task}"
        self._seen[request.prompt] += 1
        dice = random.Random(f"{self._seed} {request.prompt} {self._seen[request.prompt]}")
        fault = dice.choices(FAULTS, WEIGHTS)[0] if dice.random() < self._share else None
        if _is_doomed(self._seed, task):  # all requests of this task after the first fail
            fault = None if self._seen[request.prompt] == 1 and request.messages[0]["role"] == "system" else "500"
        return self._step(request, f"Q{task}", fault, self._delay * dice.uniform(0.5, 1.5))

    def _step(self, request: Request, task: str, fault: str | None, delay: float) -> Step:
        if fault in {"429", "500"}:
            self.account.faults[fault].append((task, 0))
            return Fails(int(fault), "Injected.", retry_after=RETRY_AFTER if fault == "429" else None)
        limit = bound(request.messages, reply_tokens=request.body["max_tokens"])
        self.account.calls += 1
        self.account.tokens += limit.tokens
        self.account.tasks[task] += limit.tokens
        if fault is not None:
            self.account.faults[fault].append((task, limit.tokens))
        if fault == "hang":
            return Hangs()
        cut = 40 if fault == "cut reply" else None
        usage = (limit.input_tokens, limit.output_tokens)
        return Says(_reply(request, task), usage, cost=limit.tokens * TOKEN, delay=delay, breaks_after=cut)


def _is_doomed(seed: int, task: str) -> bool:
    return random.Random(f"{seed} doomed {task}").random() < 0.005  # noqa: PLR2004 (one of 200)


def _reply(request: Request, task: str) -> str:
    if request.messages[0]["role"] != "system":
        return "42"
    if f"{task} CHILD: ask" in str(request.messages[1]["content"]):
        return CHILD.format(task)
    asked = any("asked" in str(message["content"]).split() for message in request.messages[2:])
    return (LAST if asked and not _TROUBLE.search(request.prompt) else ROOT).format(task)


def main() -> None:
    """Serve until standard input ends."""
    seed, share, delay = sys.argv[1:]
    script = Script(int(seed), float(share), float(delay))
    with LoopbackProvider(script) as provider:
        print(provider.base_url, flush=True)
        for _ in sys.stdin:
            provider.requests.clear()
            print(json.dumps(vars(script.account)), flush=True)


if __name__ == "__main__":
    main()
