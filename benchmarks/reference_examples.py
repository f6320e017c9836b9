"""Run the reference's examples, unchanged, against servers of this machine.

    python benchmarks/reference_examples.py CHECKOUT [NAME ...]

CHECKOUT is a checkout of github.com/alexzhang13/rlm. Each example is a process in an empty folder. Its model is a
provider on loopback with a script, its sandboxes are the emulators of `tests/`, and containers are those of the local
engine. An example holds if it ends without an error and prints what its answer must be.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from reference_differences import Report

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path += [str(TESTS), str(TESTS / "clouds"), str(TESTS / "modal")]

from loopback import LoopbackProvider, Request  # noqa: E402 (it is in the folder of the tests)

SECONDS = 180
_OUTGROWN = "about to outgrow your window"
_FILL = "I think about it. " * 3_000
"""Fills the window, so that the conversation is summarised."""
_WRONG = re.compile(r"^(Error:|Traceback|.*Stderr: (?!\(none\)))", re.MULTILINE)

Model = Callable[[Request], str]


def cells(*codes: str) -> Model:
    """A model that says one cell after another, and a summary when it is asked for one."""
    rest = iter(codes)

    def reply(request: Request) -> str:
        if _OUTGROWN in request.prompt:
            return "All is in variables."
        return f"```repl\n{next(rest)}\n```"

    return reply


def wordy(*codes: str) -> Model:
    """`cells` with many words."""
    model = cells(*codes)
    return lambda request: model(request) if _OUTGROWN in request.prompt else f"{_FILL}\n{model(request)}"


def ready(value: str) -> str:
    """The code that gives an answer."""
    return f'answer["content"] = {value}\nanswer["ready"] = True'


@dataclass(frozen=True)
class Example:
    """What an example needs, and the words that it must print.

    Attributes:
        model: makes the model of one run.
        places: the emulators that it needs.
        summaries: whether the conversation must be summarised.
    """

    prints: tuple[str, ...]
    model: Callable[[], Model] = cells
    places: tuple[str, ...] = ()
    summaries: bool = False


_ROUND = (
    "Stdout: 6",
    "answer-dict final answer: '42'",
    "Response: Mock response to: What is 2+2?",
    "Result: Got 3 responses",
    "First response: Mock response to: Question 1",
    "Done!",
)
_STEPS = (
    "import random; random.seed(42); a = [random.random() for _ in range(50)]; print(a)",
    "m = sum(a)",
    "s = m + 1",
)
_LM = ("4", "<class 'str'>", "revealing the magic number", "Secret from setup code:  1424424", "response variable: '4'")

EXAMPLES = {
    "compaction_example": Example(
        ("Response: 5.5",), lambda: wordy(*_STEPS, ready("round(s - m + 4.5, 1)")), summaries=True
    ),
    "compaction_history_retrieval_example": Example(
        ("Response: 50",), lambda: wordy(*_STEPS, "print(history)", ready("len(a)")), summaries=True
    ),
    "custom_tools_example": Example(
        ("Final Answer: $31,975.00",),
        lambda: cells(
            "prices = fetch_stock_price('AAPL'), MARKET_CONFIG['currency']\nprint(prices)",
            ready("format_currency(calculate_portfolio_value({'AAPL': 100, 'GOOGL': 100}))"),
        ),
    ),
    "daytona_repl_example": Example((*_ROUND, "Daytona sandbox started with ID: sb-"), places=("daytona",)),
    "depth_metadata_example": Example(
        ("Response: 2, 3, 5, 7, 11", "has nested metadata: 1 iteration(s)", "Iteration 1, Sub-call 1:"),
        lambda: cells(f"primes = rlm_query('The first 5 primes?')\n{ready('primes')}", ready("'2, 3, 5, 7, 11'")),
    ),
    "docker_repl_example": Example(
        (
            "print(x * 2) → 6",
            "Response: Mock: Hello!",
            "Batched count: 2",
            "triple(CONST) → 21",
            "rlm_query → child-answer(solve subtask)",
            "['child-answer(a)', 'child-answer(b)', 'child-answer(c)']",
        )
    ),
    "e2b_repl_example": Example(("65536",), lambda: cells(ready("2 ** 2 ** 2 ** 2")), ("e2b",)),
    "lm_in_prime_repl": Example(("rlm_calls made: 1", *_LM), lambda: lambda _: "4", ("prime",)),
    "lm_in_repl": Example(_LM, lambda: lambda _: "4"),
    "logger_example": Example(
        ("Response: 15", "First iteration keys:"), lambda: cells("print(15)", ready("sum(range(6))"))
    ),
    "modal_repl_example": Example(_ROUND, places=("modal",)),
    "prime_repl_example": Example(("65536",), lambda: cells(ready("2 ** 2 ** 2 ** 2")), ("prime",)),
    "quickstart": Example(
        ("Correct: True",),
        lambda: cells("import re\nfound = re.search(r'SECRET_NUMBER=(\\d+)', context)[1]", ready("found")),
    ),
    "rlm_query_batched_example": Example(
        ("Total sub-calls found: 3", "has nested metadata: 1 iteration(s)"),
        lambda: cells(
            f"responses = rlm_query_batched(['primes?', 'evens?', 'squares?'])\n{ready('responses')}",
            *[ready("'1, 2, 3'")] * 3,
        ),
    ),
}

EMULATORS = {
    "daytona": ("daytona_cloud", "DaytonaEmulator"),
    "e2b": ("e2b_cloud", "E2BEmulator"),
    "modal": ("emulator", "ModalEmulator"),
    "prime": ("prime", "PrimeEmulator"),
}


@contextmanager
def surroundings(example: Example, provider: LoopbackProvider, folder: Path) -> Iterator[dict[str, str]]:
    """The environment variables of an example; all keys in them are of loopback servers."""
    with ExitStack() as stack:
        env = {name: os.environ[name] for name in ("PATH", "LANG", "DOCKER_HOST") if name in os.environ}
        env |= {"HOME": str(folder), "MODAL_CONFIG_PATH": os.devnull, **provider.environment}
        env |= {"PORTKEY_API_KEY": "loopback-key", "PORTKEY_BASE_URL": provider.base_url}
        for place in example.places:
            module, name = EMULATORS[place]
            env |= stack.enter_context(getattr(import_module(module), name)()).environment
        yield env


def run(example: Example, file: Path) -> str:
    """Run an example. Returns what is wrong with it; empty: nothing."""
    with (
        tempfile.TemporaryDirectory() as folder,
        LoopbackProvider(example.model()) as provider,
        surroundings(example, provider, Path(folder)) as env,
    ):
        command = [sys.executable, str(file.resolve())]
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        summaries = sum(_OUTGROWN in request.prompt for request in provider.requests)
    missing = [words for words in example.prints if words not in done.stdout]
    if done.returncode or missing or (example.summaries and not summaries):
        return f"exit {done.returncode}, without {missing}: {done.stderr.strip()[-400:] or done.stdout[-400:]}"
    found = _WRONG.search(done.stdout)
    return found[0] if found else ""


def main(checkout: str, names: list[str]) -> int:
    """Run the examples of a checkout, or those of some names."""
    report, files = Report(), sorted((Path(checkout) / "examples").glob("*.py"))
    for file in files:
        if names and file.stem not in names:
            continue
        wrong = run(EXAMPLES[file.stem], file) if file.stem in EXAMPLES else "it is not known here"
        print(f"{'differs' if wrong else 'holds':8} {file.name}", flush=True)
        report.add(f"examples/{file.name}", "failed" if wrong else "passed", wrong)
    print(*report.lines({f"examples/{file.name}" for file in files}), sep="\n")
    return int(not report.is_good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
