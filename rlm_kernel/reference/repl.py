"""The REPLs of the reference's `rlm.environments`: `execute_code` in a Jupyter kernel, without a run.

Example:
    with LMHandler(client=get_client("openai", {"model_name": "gpt-5-mini"})) as handler:
        with LocalREPL(lm_handler_address=handler.address, context_payload="text") as repl:
            print(repl.execute_code("print(llm_query(context))").stdout)
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from rlm_kernel._async import Job, run_in_thread
from rlm_kernel.engine.kernel_steps import take_step, tool_step
from rlm_kernel.engine.tools import Tool, tools_of
from rlm_kernel.errors import ConfigError, KernelError, RLMError
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.reference.calls import Address, LMRequest, LMResponse, send_lm_request
from rlm_kernel.trajectory.log.iterations import REPLResult
from rlm_kernel.types import Answer, CellReport, CellResult, Query, RLMChatCompletion, ToolCall
from rlm_kernel.untrusted import json_text

Subcall = Callable[[str, str | None], RLMChatCompletion]

MAX_MODEL_CALLS = 16
"""In flight, of one REPL."""
DIED_BETWEEN = "KernelError: the kernel died between two cells. It is new, and the variables are lost."
_NO_ANSWER = {"content": "", "ready": False}


@runtime_checkable
class SupportsPersistence(Protocol):
    """A REPL that serves one conversation after another."""

    def update_handler_address(self, address: Address) -> None:
        """Ask another handler."""

    def add_context(self, context_payload: Any, context_index: int | None = None) -> int:
        """Add an input as `context_N`."""

    def get_context_count(self) -> int:
        """How many inputs it has."""

    def add_history(self, message_history: list[dict[str, Any]], history_index: int | None = None) -> int:
        """Add a conversation as `history_N`."""

    def get_history_count(self) -> int:
        """How many conversations it has."""


@runtime_checkable
class SupportsCustomTools(Protocol):
    """A REPL with functions and values of the user."""

    custom_tools: dict[str, Any]
    custom_sub_tools: dict[str, Any]


class KernelREPL:
    """A kernel with the functions of the REPL. The classes below have its arguments.

    Args:
        lm_handler_address: of the `LMHandler` that answers `llm_query`; None: the cell gets a text `Error: ...`.
        context_payload: becomes `context_0` and `context`.
        setup_code: a cell that runs first.
        persistent: no effect, because the variables always stay.
        depth: of the model calls.
        subcall_fn: answers `rlm_query(prompt, model)`; None: as `llm_query`.
        custom_tools, custom_sub_tools: as of `RLM`.
        compaction: whether `history` is the list that `append_compaction_entry` fills.
        max_concurrent_subcalls: calls of `subcall_fn` at a time.
        options: `environment_kwargs` of the place.

    Raises:
        ConfigError: an argument is wrong, or `setup_code` raised.
        KernelError: the kernel did not start.
    """

    place: ClassVar[str] = "local"
    broker_url = None
    """There is no broker: the calls of cells are Jupyter messages."""

    def __init__(
        self,
        lm_handler_address: Address | None = None,
        context_payload: Any = None,
        setup_code: str | None = None,
        persistent: bool = False,
        depth: int = 1,
        subcall_fn: Subcall | None = None,
        custom_tools: dict[str, Any] | None = None,
        custom_sub_tools: dict[str, Any] | None = None,
        compaction: bool = False,
        max_concurrent_subcalls: int = 4,
        **options: Any,
    ) -> None:
        self.lm_handler_address, self.subcall_fn = lm_handler_address, subcall_fn
        self.persistent, self.depth, self.compaction = persistent, depth, compaction
        self.max_concurrent_subcalls = max_concurrent_subcalls
        self.custom_tools = custom_tools or {}
        self.custom_sub_tools = self.custom_tools if custom_sub_tools is None else custom_sub_tools
        self._tools = tools_of(custom_tools)
        self._responder = _Responder(self, self._tools)
        self._environment = environment(self.place, options)
        self.cell_timeout = self._environment.cell_timeout
        self._lock = threading.RLock()
        self._given: dict[str, Any] = {}
        self._report = CellReport()
        self._contexts = self._histories = 0
        self._is_closed = False
        self._process = os.getpid()
        self._session = Job(self._open()).wait()
        weakref.finalize(self, _close, self._session, self._process).atexit = False
        try:
            self._set_up(context_payload, environment(self.place, {**options, "setup_code": setup_code}).setup)
        except BaseException:
            self.cleanup()
            raise

    def execute_code(self, code: str) -> REPLResult:
        """Run a cell. A cell that raises is a result, too: its traceback is in `stderr`.

        Raises:
            ReentrantError: a function that a cell of this REPL calls, called it.
            KernelError: the REPL is closed, or its kernel died and did not start again.
        """
        if id(self) in _answering.get():
            raise ReentrantError("Reentrant execute_code: the cell that calls this function is still running.")
        self._check_process()
        with self._lock:
            return self._execute(code)

    def _execute(self, code: str) -> REPLResult:
        calls = self._responder.calls = []
        died = "" if self._session.alive or self._is_closed else DIED_BETWEEN
        result = self._run(code)
        given = self._report.final if self._report.answer is None else self._report.answer
        return REPLResult(
            result.stdout,
            "\n".join(filter(None, (died, result.stderr, self._why(result)))),
            self.locals,
            result.seconds,
            [call for call in calls if call is not None],
            given,
        )

    @property
    def locals(self) -> dict[str, Any]:
        """The variables. What JSON cannot hold is text: the beginning of the `repr` of built-in types, else the type.

        A value of many megabytes is the name of its type.
        """
        if self._is_closed:
            return {}
        known: dict[str, Any] = {
            "answer": {"content": self._report.draft or "", "ready": self._report.answer is not None}
        }
        known |= {tool.name: tool.content for tool in self._tools if tool.kind == "value"}
        self._check_process()
        with self._lock:
            return known | self._given | Job(self._read(list(self._report.variables))).wait()

    @property
    def globals(self) -> dict[str, Any]:
        """The same as `locals`: a kernel has one namespace."""
        return self.locals

    @property
    def sandbox_id(self) -> str | None:
        """The name of the sandbox or container; None: the kernel is in none."""
        return self._session.sandbox_id

    @property
    def sandbox(self) -> SimpleNamespace:
        """The sandbox, with its `id` only: the engine's loop owns the client of the cloud."""
        return SimpleNamespace(id=self.sandbox_id)

    def load_context(self, context_payload: Any) -> None:
        """Set the input: `context_0` and `context`."""
        self.add_context(context_payload, 0)

    def add_context(self, context_payload: Any, context_index: int | None = None) -> int:
        """Add an input as `context_N`; the first one is also `context`. Returns its number."""
        with self._lock:
            index = self._contexts if context_index is None else context_index
            self._number("context", index, context_payload)
            self._contexts = max(self._contexts, index + 1)
        return index

    def get_context_count(self) -> int:
        """How many inputs it has."""
        return self._contexts

    def add_history(self, message_history: list[dict[str, Any]], history_index: int | None = None) -> int:
        """Add a conversation as `history_N`; the first one is also `history`. Returns its number."""
        with self._lock:
            index = self._histories if history_index is None else history_index
            self._number("history", index, message_history)
            self._histories = max(self._histories, index + 1)
        return index

    def get_history_count(self) -> int:
        """How many conversations it has."""
        return self._histories

    def append_compaction_entry(self, entry: list[dict[str, Any]] | dict[str, Any]) -> None:
        """Append a part of a conversation, or its summary, to `history`. Without `compaction`: no effect."""
        if self.compaction:
            self._set("history", [*self._given["history"], entry])

    def update_handler_address(self, address: Address) -> None:
        """Ask another handler, and begin a new answer."""
        self.lm_handler_address = address
        self._set("answer", _NO_ANSWER)

    def cleanup(self) -> None:
        """End the kernel. Idempotent. No effect in a process that was forked: the kernel is its parent's."""
        self._is_closed = True
        if self._process == os.getpid():
            Job(self._session.close()).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    # -- the kernel

    async def _open(self) -> Session:
        session = await Session.open(self._environment, self._responder)
        try:
            await self._prepare(session)
        except BaseException:
            await session.close()
            raise
        return session

    def _check_process(self) -> None:
        """Refuse to be used after `os.fork()` in the child."""
        if self._process != os.getpid():
            raise KernelError("The kernel of this REPL belongs to the process that was forked: make a REPL here.")

    def _set_up(self, context: Any, setup: Sequence[str]) -> None:
        if context is not None:
            self.load_context(context)
        for code in setup:
            if (failed := self._run(code).error) is not None:
                raise ConfigError(f"setup_code failed:\n{failed.traceback}")

    async def _prepare(self, session: Session) -> None:
        for tool in self._tools:
            content = tool.card() if tool.kind == "function" else tool.content
            cell = await take_step(session, tool_step(tool.kind, tool.name, content))
            if cell is not None and cell.error is not None:
                raise ConfigError(f"custom_tools[{tool.name!r}]: its code raised:\n{cell.error.traceback}")
        if self.compaction:
            self._given.setdefault("history", [])
        for name, value in self._given.items():
            await session.set(name, value)

    def _run(self, code: str) -> CellResult:
        return Job(self._run_in_kernel(code)).wait()

    async def _run_in_kernel(self, code: str) -> CellResult:
        if not self._session.alive and not self._is_closed:
            await self._start_again()
        if self._report.answer is not None:  # the answer of the cell before
            await self._session.set("answer", _NO_ANSWER)
        result = await self._session.run(code, self.cell_timeout)
        self._report = result.report
        if not result.kernel_alive:
            await self._start_again()
        return result

    async def _start_again(self) -> None:
        self._report = CellReport()
        await self._session.restart()
        await self._prepare(self._session)

    async def _read(self, names: Sequence[str]) -> dict[str, Any]:
        """The values of variables. No code of the cells runs for it, such as a `__repr__` that never ends."""
        types = self._report.variables
        values: dict[str, Any] = {}
        for name in names:
            report = await self._session.report(name, plain=True) or CellReport()
            values[name] = f"<{types[name]}>" if report.final is None else report.final
            if types[name] == "NoneType":
                values[name] = None
            elif report.final_json is not None:
                with contextlib.suppress(ValueError):  # a cell has changed what reports
                    values[name] = json_text.loads(report.final_json)
        return values

    def _why(self, result: CellResult) -> str:
        """What ended a cell, or an empty text."""
        if result.status == "timeout":
            left = "Variables stay." if result.kernel_alive else "The kernel is new, and the variables are lost."
            return f"TimeoutError: the cell took longer than {self.cell_timeout} s. {left}"
        if result.status == "died":
            return "KernelError: the kernel died. It is new, and the variables are lost."
        return result.error.traceback if result.error else ""

    def _number(self, name: str, index: int, value: Any) -> None:
        self._set(f"{name}_{index}", value)
        if index == 0 and not (name == "history" and self.compaction):
            self._set(name, value)

    def _set(self, name: str, value: Any) -> None:
        self._check_process()
        Job(self._session.set(name, value)).wait()
        if name != "answer":
            self._given[name] = copy.deepcopy(value)


class ReentrantError(RLMError, RuntimeError):
    """`execute_code` was called by a function that a running cell of the same REPL has called."""


_answering: ContextVar[frozenset[int]] = ContextVar("answering", default=frozenset())
"""The REPLs whose cells wait for the running function."""


class _Responder:
    """Answers the cells of a REPL. It does not keep the REPL, which is closed when nobody uses it any more.

    Attributes:
        calls: the answered calls of the running cell; None: one that failed.
    """

    def __init__(self, repl: KernelREPL, tools: Sequence[Tool]) -> None:
        self.calls: list[RLMChatCompletion | None] = []
        self._repl = weakref.ref(repl)
        self._number = id(repl)
        self._tools = {tool.name: tool for tool in tools}
        self._models = asyncio.Semaphore(MAX_MODEL_CALLS)
        self._subcalls = asyncio.Semaphore(repl.max_concurrent_subcalls)

    async def answer(self, question: Query | ToolCall) -> Sequence[Answer]:
        """The `Responder` of the session."""
        _answering.set(_answering.get() | {self._number})
        if isinstance(question, ToolCall):
            if (tool := self._tools.get(question.tool)) is None:
                return [Answer(error=f"{question.tool}() needs a run: RLM(...).completion(...)")]
            return [await tool.call(question)]
        if question.schema or question.images:
            refusal = Answer(error="schema= and images= need a run: RLM(...).completion(...)", refused=True)
            return [refusal] * len(question.prompts)
        calls, first = self.calls, len(self.calls)
        calls += [None] * len(question.prompts)  # in the order of the prompts
        jobs = [self._one(question, prompt, calls, first + n) for n, prompt in enumerate(question.prompts)]
        return await asyncio.gather(*jobs)

    async def _one(self, query: Query, prompt: str, calls: list[RLMChatCompletion | None], index: int) -> Answer:
        repl = self._repl()
        assert repl is not None, "it runs a cell"
        subcall = repl.subcall_fn if query.kind == "rlm_query" else None
        try:
            if subcall is not None:
                async with self._subcalls:
                    completion = await run_in_thread(lambda: subcall(prompt, query.model))
            else:
                async with self._models:
                    completion = await run_in_thread(lambda: _ask(repl, prompt, query.model))
            text = str(completion.response)
        except Exception as error:  # noqa: BLE001 (a function of the user; the cell gets what it raises)
            return Answer(f"Error: {'RLM' if subcall else 'LM'} query failed - {error}")
        calls[index] = completion
        return Answer(text)


class _NoAnswerError(Exception):
    """A handler has no answer."""


def _ask(repl: KernelREPL, prompt: str, model: str | None) -> RLMChatCompletion:
    if repl.lm_handler_address is None:
        raise _NoAnswerError("No LM handler configured")
    reply: LMResponse = send_lm_request(repl.lm_handler_address, LMRequest(prompt, model=model, depth=repl.depth))
    if reply.chat_completion is None:
        raise _NoAnswerError(reply.error)
    return reply.chat_completion


def _close(session: Session, process: int) -> None:
    """Close without waiting: called when a REPL is garbage-collected, in any thread of the process that made it."""
    if process == os.getpid():
        Job(session.close())


class LocalREPL(KernelREPL):
    """A kernel of this machine."""


class IPythonREPL(KernelREPL):
    """A kernel of this machine. `kernel_mode` and both timeouts have no effect: every kernel is a process.

    Args:
        cell_timeout: seconds; 0 or less: no limit.
    """

    def __init__(
        self,
        *args: Any,
        kernel_mode: str = "in_process",
        cell_timeout: float | None = None,
        startup_timeout: float = 60.0,
        subcall_timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        if kernel_mode not in {"in_process", "subprocess"}:
            raise ConfigError(f"kernel_mode is 'in_process' or 'subprocess', not {kernel_mode!r}.")
        for name, value in {"startup_timeout": startup_timeout, "subcall_timeout": subcall_timeout}.items():
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is a number of seconds greater than 0, not {value!r}.")
        self.kernel_mode, self.startup_timeout, self.subcall_timeout = kernel_mode, startup_timeout, subcall_timeout
        limit = None if cell_timeout is None or cell_timeout <= 0 else cell_timeout
        super().__init__(*args, cell_timeout=limit, **kwargs)


class PlacedREPL(KernelREPL):
    """A REPL whose options come before its other arguments, if they are given by position.

    Args:
        args: options, in the order of `order`.
        kwargs: as of `KernelREPL`.
    """

    order: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(self.order):
            raise ConfigError(f"Only {', '.join(self.order)} can be given by position: name the other arguments.")
        super().__init__(**dict(zip(self.order, args, strict=False)), **kwargs)


class DockerREPL(PlacedREPL):
    """A kernel in a container."""

    place = "docker"
    order = ("image",)

    @property
    def container_id(self) -> str | None:
        """The name of the container; None: it was removed."""
        return self.sandbox_id


class ModalREPL(PlacedREPL):
    """A kernel in a sandbox of Modal."""

    place = "modal"
    order = ("app_name", "image", "timeout")


class PrimeREPL(PlacedREPL):
    """A kernel in a sandbox of Prime Intellect."""

    place = "prime"
    order = ("name", "docker_image", "timeout_minutes")


class DaytonaREPL(PlacedREPL):
    """A kernel in a sandbox of Daytona."""

    place = "daytona"
    order = ("api_key", "target", "name", "timeout", "cpu", "memory", "disk", "auto_stop_interval", "image")


class E2BREPL(PlacedREPL):
    """A kernel in a sandbox of E2B."""

    place = "e2b"
    order = ("timeout",)


_PLACES: dict[str, type[KernelREPL]] = {
    "local": LocalREPL,
    "ipython": IPythonREPL,
    "docker": DockerREPL,
    "modal": ModalREPL,
    "prime": PrimeREPL,
    "daytona": DaytonaREPL,
    "e2b": E2BREPL,
}


def get_environment(environment: str, environment_kwargs: dict[str, Any]) -> KernelREPL:
    """The REPL of a place, with its arguments.

    Raises:
        ConfigError: there is no such place.
    """
    if environment not in _PLACES:
        raise ConfigError(f"Unknown environment: {environment!r}. REPLs are at {', '.join(_PLACES)}.")
    return _PLACES[environment](**environment_kwargs)
