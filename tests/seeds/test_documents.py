"""The user's documents are the contract: their Python code is run as it stands.

`documents/` holds them word for word. Each block of code is run in the role of a reader who follows the page, with the
paid provider replaced by one on loopback that the environment names.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rlm import RLM, RLMChatCompletion

DOCUMENTS = Path(__file__).parent / "documents"
NUMBER_OF_BLOCKS = 35

# -- the blocks


@dataclass(frozen=True)
class Block:
    """A piece of code in a document; `place` is the document's number and the line of its first line."""

    place: str
    code: str


PLAIN = {
    "001": [
        ("from rlm import RLM", "print(result.response)"),
        ("RLM(", ")"),
        ("# OpenAI / Anthropic", "}"),
        ("# vLLM (local)", "}"),
        ("# Portkey", "}"),
        ("# Docker", 'environment_kwargs={"image": "python:3.11-slim"}'),
        ("# Modal", "}"),
        ("# Local", 'environment_kwargs={"setup_code": "import numpy as np"}'),
        ("rlm = RLM(", ")"),
        ("from rlm.logger import RLMLogger", "rlm = RLM(..., logger=logger)"),
        ("result = rlm.completion(", ")"),
    ]
}
"""A page copied as plain text has no fences: the first and the last line of each piece of code, in order."""


def blocks(language: str) -> dict[str, Block]:
    found: list[Block] = []
    for file in sorted(DOCUMENTS.glob("*.md")):
        lines, number = file.read_text("utf-8").split("\n"), file.name[:3]
        copied = PLAIN.get(number, []) if language == "python" else []
        ranges = (*plain(lines, copied), *fenced(lines, language))
        found += [Block(f"{number}:{start + 1}", "\n".join(lines[start:end])) for start, end in ranges]
    return {block.place: block for block in found}


def fenced(lines: list[str], language: str) -> Iterator[tuple[int, int]]:
    for number, line in enumerate(lines):
        if line == f"```{language}":
            yield number + 1, lines.index("```", number)


def plain(lines: list[str], anchors: list[tuple[str, str]]) -> Iterator[tuple[int, int]]:
    at = 0
    for first, last in anchors:
        start = lines.index(first, at)
        at = lines.index(last, start) + 1
        yield start, at


BLOCKS = blocks("python")

# -- the reader


SOLUTIONS = {
    "50th Fibonacci number": "a, b = 0, 1\nfor _ in range(50):\n    a, b = b, a + b\nFINAL(a)",
    "first 100 powers of two": "FINAL('\\n'.join(str(2**n) for n in range(100)))",
    "weather in Tokyo": "FINAL(f'{fetch_weather(\"Tokyo\")}, {calculate_shipping(10, 500)}, {API_KEY}')",
    "Use numpy.": "FINAL(np.__name__)",
    "Use the helper.": "FINAL(helper(21))",
    "Ask another model.": "FINAL(llm_query('Who are you?'))",
    "Use the values.": "FINAL(f'{CONFIG[\"timeout\"]}, {ALLOWED_CITIES[0]}')",
}


def solve(request: Any) -> str:
    """The model: it writes code for the tasks of the documents, and reads the context for everything else."""
    if request.prompt == "Who are you?":
        return request.body["model"]
    if request.prompt.startswith("Output:"):
        return f"FINAL({request.prompt.splitlines()[1]})"
    code = next(
        (code for task, code in SOLUTIONS.items() if task in request.said), "print('The context reads:', context)"
    )
    return f"I write a cell.\n```repl\n{code}\n```"


@dataclass
class Reader:
    """Somebody with a shell in an empty folder, who has the keys of the documents and pastes their code."""

    provider: Any
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    names: dict[str, Any] = field(default_factory=dict)

    def runs(self, code: str) -> None:
        """Run the code as a file of the reader's own, so that `load_dotenv()` looks beside it."""
        file = Path("block.py").resolve()
        # Three dots stand for the arguments that the page has shown before.
        file.write_text(code.replace("RLM(...,", 'RLM(backend_kwargs={"model_name": "gpt-5-mini"},'), "utf-8")
        compiled = compile(file.read_text("utf-8"), file, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        coroutine = eval(compiled, self.names)
        if coroutine is not None:
            asyncio.run(coroutine)

    def asks(self, question: str, **arguments: Any) -> str:
        """The answer of the `rlm` that the block made, or of one with the arguments that it set."""
        if arguments:
            self.names["rlm"] = RLM(**{"backend_kwargs": {"model_name": "gpt-5"}, **arguments})
        return self.names["rlm"].completion(question).response

    def leaves(self) -> None:
        """The documents never close an RLM: its connections end with the process."""
        self.names["rlm"].close()


@pytest.fixture
def reader(provider, monkeypatch, capsys):
    provider.script = solve
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    names = {
        "RLM": RLM,
        "os": os,
        "rlm": RLM(backend_kwargs={"model_name": "gpt-5"}),
        "massive_document": "page\n" * 100_000,
        "fetch_weather": lambda city: f"Weather in {city}: Sunny, 72°F",
        "calculate_shipping": lambda weight, distance: weight * 0.5 + distance * 0.1,
    }
    reader = Reader(provider, monkeypatch, capsys, names)
    for backend in ("ANTHROPIC", "OPENROUTER", "PORTKEY"):
        monkeypatch.setenv(f"{backend}_API_KEY", f"key-of-{backend}")
        monkeypatch.setenv(f"{backend}_BASE_URL", provider.base_url)
    # The documents' vLLM server listens at localhost:8000.
    monkeypatch.setattr(socket.socket, "connect", redirected(socket.socket.connect, provider.address))
    yield reader
    reader.leaves()


def redirected(connect, instead):
    def connected(self, address):
        if self.family == socket.AF_INET6 and address[1] == 8000:
            raise ConnectionRefusedError("it listens on IPv4 only")
        return connect(self, instead if address == ("127.0.0.1", 8000) else address)

    return connected


# -- what each block promises


@dataclass(frozen=True)
class Case:
    place: str
    promise: Callable[[Reader], None]
    needs: str | None = None  # a fixture: the place in which the kernel runs

    @property
    def id(self) -> str:
        return "-".join(filter(None, (self.place, self.promise.__name__, self.needs)))


def answers(reader: Reader) -> None:
    assert reader.asks("Say hello.") == "The context reads: Say hello."


def asks_the_model_it_names(reader: Reader) -> None:
    answers(reader)
    assert reader.provider.requests[-1].body["model"] == "gpt-5"


def prints_the_response(reader: Reader) -> None:
    assert reader.capsys.readouterr().out == "The context reads: Your prompt here\n"


def prints_the_number(reader: Reader) -> None:
    assert reader.capsys.readouterr().out == "12586269025\n"


def prints_the_powers(reader: Reader) -> None:
    assert reader.capsys.readouterr().out.split() == [str(2**n) for n in range(100)]


def shows_what_it_does(reader: Reader) -> None:
    answers(reader)
    shown = reader.capsys.readouterr().err
    assert "I write a cell." in shown
    assert "print('The context reads:', context)" in shown
    assert shown.count("The context reads: Say hello.") >= 2  # as output and as answer


def gives_the_documented_result(reader: Reader) -> None:
    result = reader.names["result"]
    assert isinstance(result, RLMChatCompletion)
    assert (result.root_model, result.prompt) == ("gpt-5", "Your input text or context")
    assert result.response == "The context reads: Your input text or context"
    assert result.execution_time > 0
    assert result.metadata is None
    sums = result.usage_summary.to_dict()["model_usage_summaries"]["gpt-5"]
    assert sums["total_calls"] == len(reader.provider.requests) == 2
    assert min(sums["total_input_tokens"], sums["total_output_tokens"]) > 0
    assert "A short prompt visible to the root LM" in reader.provider.requests[0].prompt


def set_up_openai(reader: Reader) -> None:
    assert reader.asks("Hi.", backend="openai", **kwargs_of(reader)) == "The context reads: Hi."
    assert reader.provider.requests[0].headers["authorization"] == "Bearer ..."


def set_up_anthropic(reader: Reader) -> None:
    assert reader.asks("Hi.", backend="anthropic", **kwargs_of(reader)) == "The context reads: Hi."
    assert asked(reader) == ("/v1/messages", "gpt-5-mini", "...")


def set_up_vllm(reader: Reader) -> None:
    assert reader.asks("Hi.", backend="vllm", **kwargs_of(reader)) == "The context reads: Hi."
    assert asked(reader) == ("/v1/chat/completions", "meta-llama/Llama-3-70b", "EMPTY")


def set_up_portkey(reader: Reader) -> None:
    assert reader.asks("Hi.", backend="portkey", **kwargs_of(reader)) == "The context reads: Hi."
    assert asked(reader, "x-portkey-api-key") == ("/v1/chat/completions", "@openai/gpt-5-mini", "...")


def asks_anthropic(reader: Reader) -> None:
    answers(reader)
    assert asked(reader) == ("/v1/messages", "claude-sonnet-4-20250514", "key-of-ANTHROPIC")


def asks_portkey(reader: Reader) -> None:
    answers(reader)
    assert asked(reader, "x-portkey-api-key") == ("/v1/chat/completions", "@openai/gpt-5-nano", "key-of-PORTKEY")


def asks_openrouter(reader: Reader) -> None:
    answers(reader)
    assert asked(reader) == ("/v1/chat/completions", "openai/gpt-4o", "key-of-OPENROUTER")


def asks_vllm(reader: Reader) -> None:
    answers(reader)
    assert asked(reader) == ("/v1/chat/completions", "meta-llama/Llama-3-70b", "EMPTY")


def asks_the_other_backend_in_sub_calls(reader: Reader) -> None:
    assert reader.asks("Ask another model.") == "claude-sonnet-4-20250514"
    assert asked(reader) == ("/v1/messages", "claude-sonnet-4-20250514", "key-of-ANTHROPIC")


def asked(reader: Reader, header: str = "authorization") -> tuple[str, str, str]:
    """Path, model and key of the last request."""
    request = reader.provider.requests[-1]
    return request.path, request.body["model"], request.headers[header].removeprefix("Bearer ")


def set_up_docker(reader: Reader) -> None:
    assert reader.asks("Hi.", environment="docker", **kwargs_of(reader)) == "The context reads: Hi."


def set_up_modal(reader: Reader) -> None:
    assert reader.asks("Hi.", environment="modal", **kwargs_of(reader)) == "The context reads: Hi."


def set_up_local(reader: Reader) -> None:
    # What is promised is that the code runs before the first cell, not that numpy is installed.
    Path("numpy.py").touch()
    reader.monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    assert reader.asks("Use numpy.", environment="local", **kwargs_of(reader)) == "numpy"


def kwargs_of(reader: Reader) -> dict[str, Any]:
    return {name: value for name, value in reader.names.items() if name in ("backend_kwargs", "environment_kwargs")}


def calls_the_tools(reader: Reader) -> None:
    assert reader.names["result"].response == "Weather in Tokyo: Sunny, 72°F, 55.0, your-api-key"


def describes_the_tools(reader: Reader) -> None:
    assert "72°F" in reader.asks("What is the weather in Tokyo?")
    assert "- `fetch_weather`: Fetch current weather data for a city name" in str(reader.provider.requests[0].messages)


def runs_in_the_repl(reader: Reader) -> None:
    assert reader.asks("What is the weather in Tokyo?", custom_tools=tools(reader)).startswith("Weather in Tokyo")


def defines_a_helper(reader: Reader) -> None:
    assert reader.asks("Use the helper.", custom_tools=reader.names["custom_tools"]) == "42"


def defines_values(reader: Reader) -> None:
    assert reader.asks("Use the values.", custom_tools=reader.names["custom_tools"]) == "30, Tokyo"


def tools(reader: Reader) -> dict[str, Any]:
    return {**{name: reader.names[name] for name in ("fetch_weather", "calculate_shipping")}, "API_KEY": "k"}


def logs_the_run(reader: Reader) -> None:
    if "result" not in reader.names:
        answers(reader)
    assert list(Path("logs").glob("*.jsonl"))
    assert list(Path("logs").glob("*.ipynb"))


def summarizes(reader: Reader) -> None:
    assert reader.names["result"].response
    assert list(Path("logs").glob("analysis_*.jsonl"))


def chats(reader: Reader) -> None:
    assert "user_info" in reader.capsys.readouterr().out
    history = reader.names["agent"].get_conversation_history()
    assert [message["role"] for message in history] == ["user", "assistant"]
    reader.names["agent"].close()


CASES = [
    Case("000:6", asks_the_model_it_names),
    Case("000:118", summarizes, needs="docker_engine"),
    Case("001:6", prints_the_response),
    Case("001:46", set_up_openai),
    Case("001:46", set_up_anthropic),
    Case("001:52", set_up_vllm),
    Case("001:58", set_up_portkey),
    Case("001:75", set_up_docker, needs="docker_engine"),
    Case("001:78", set_up_modal, needs="modal_emulator"),
    Case("001:84", set_up_local),
    Case("001:102", asks_the_other_backend_in_sub_calls),
    Case("001:116", logs_the_run),
    Case("002:81", prints_the_number),
    Case("002:106", shows_what_it_does),
    Case("002:154", gives_the_documented_result),
    Case("002:205", answers),
    Case("002:220", answers, needs="docker_engine"),
    Case("002:238", answers, needs="modal_emulator"),
    Case("002:259", answers),
    Case("002:273", asks_anthropic),
    Case("002:285", asks_portkey),
    Case("002:297", asks_openrouter),
    Case("002:309", asks_vllm),
    Case("002:327", calls_the_tools),
    Case("002:351", runs_in_the_repl),
    Case("002:360", describes_the_tools),
    Case("002:386", defines_a_helper),
    Case("002:396", defines_values),
    Case("002:409", logs_the_run),
    Case("003:30", prints_the_powers),
    Case("003:47", chats),
    Case("003:88", logs_the_run),
]

SIGNATURES = {
    "000:19": RLM.__init__,
    "000:73": RLM.completion,
    "001:17": RLM.__init__,
    "001:130": RLM.completion,
}


# The documents' Claude has been retired; the SDK says so.
@pytest.mark.filterwarnings("ignore:The model 'claude-sonnet-4-20250514' is deprecated:DeprecationWarning")
@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_a_block_of_the_documents_keeps_its_promise(case, reader, request):
    if case.needs is not None:
        request.getfixturevalue(case.needs)
    reader.runs(BLOCKS[case.place].code)
    case.promise(reader)


def test_the_first_call_finds_its_key_in_the_env_file(reader):
    Path(".env").write_text("OPENAI_API_KEY=from-the-file\n", "utf-8")
    reader.monkeypatch.delenv("OPENAI_API_KEY")
    reader.runs(BLOCKS["002:81"].code)
    prints_the_number(reader)
    assert reader.provider.requests[0].headers["authorization"] == "Bearer from-the-file"


def test_every_block_of_the_documents_is_used():
    assert len(BLOCKS) == NUMBER_OF_BLOCKS
    assert {case.place for case in CASES} | SIGNATURES.keys() == BLOCKS.keys()


# -- signatures


@pytest.mark.parametrize("place", SIGNATURES)
def test_a_documented_signature_is_ours(place):
    documented, ours = signature_of(BLOCKS[place].code), inspect.signature(SIGNATURES[place]).parameters
    names = [name for name in ours if name in documented]
    assert names == list(documented)
    for name, default in documented.items():
        assert ours[name].default == default


def signature_of(code: str) -> dict[str, Any]:
    """The names and defaults of a signature as the documents write it: a call with annotations, or a head of a def."""
    head = re.sub(r"\A(def |result = rlm\.)?", "def ", code)
    arguments = ast.parse(f"{head}: ...").body[0].args
    defaults = [inspect.Parameter.empty] * (len(arguments.args) - len(arguments.defaults))
    defaults += [ast.literal_eval(default) for default in arguments.defaults]
    return dict(zip((argument.arg for argument in arguments.args), defaults, strict=True))
