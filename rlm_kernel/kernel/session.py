"""A live REPL: a kernel with the guest in it. A session runs its cells and answers their questions.

    async with await Session.open(environment("local", None), responder) as session:
        await session.set("context", text)
        cell = await session.run("len(context)")

The guest is installed by `installation`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pickle import PicklingError
from typing import Any, Self

from rlm_kernel._async import shielded
from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.guest_sources import GUEST_MODULE
from rlm_kernel.kernel import pool
from rlm_kernel.kernel.channels import Receiver
from rlm_kernel.kernel.comm import HostComm, Responder, TooMuchError
from rlm_kernel.kernel.execution import CellExecution
from rlm_kernel.kernel.incoming import UNREADABLE
from rlm_kernel.kernel.outputs import OUTPUT_TYPES, OutputCollector, OutputRoom
from rlm_kernel.kernel.process import Kernel
from rlm_kernel.kernel.protocol import COMM_ID, WIRE, Data, Encoding, ToGuest, encode_for_sending, pack
from rlm_kernel.kernel.watch import Watch
from rlm_kernel.provisioners.kernelspecs import Environment
from rlm_kernel.types import CellReport, CellResult, CellStatus, Output
from rlm_kernel.values import GIVE_PLAIN

INTERRUPT_GRACE = 2.0
"""Seconds between an interrupt without effect and the kill of the kernel."""

MAX_WHY = 200
READ_SECONDS = 10.0
"""For the text of a variable, which may have a `__str__` that never ends."""

OnOutput = Callable[[Output], None]

_READ_OF_REPLY = ("status", "execution_count", "ename", "evalue", "traceback")
_END_QUESTION = f"await __import__({GUEST_MODULE!r}).end_question(get_ipython())"
END_SECONDS = 5.0
"""For the kernel to end what a question has started: longer than the guest waits."""
_READ = f"__import__({GUEST_MODULE!r}).read_final(get_ipython())"


class Session:
    """One REPL. Make it with `open`; use it in the event loop that opened it, one cell at a time."""

    def __init__(
        self,
        environment: Environment,
        responder: Responder,
        on_output: OnOutput | None = None,
        seed: int | None = None,
    ) -> None:
        self._environment = environment
        self._seed = seed
        self._responder = responder
        self._on_output = on_output or (lambda _: None)
        self._kernel: Kernel | None = None
        self._comm: HostComm | None = None
        self._request: CellExecution | None = None
        self._puts = 0

    @classmethod
    async def open(
        cls,
        environment: Environment,
        responder: Responder,
        on_output: OnOutput | None = None,
        *,
        seed: int | None = None,
    ) -> Session:
        """Start a kernel, put the guest in it and run the environment's `setup_code`.

        Args:
            environment: where the kernel runs.
            responder: answers `llm_query` and the other query functions.
            on_output: called with each piece of output of a cell when it arrives.
            seed: of `random` and of the kernel's hashes, so that cells can be repeated; None: random.

        Raises:
            KernelError: the kernel did not start.
            ConfigError: `setup_code` raised.
        """
        session = cls(environment, responder, on_output, seed)
        try:
            await session._start()
        except BaseException:
            await session.close()
            raise
        return session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def alive(self) -> bool:
        """Whether there is a kernel to run cells in."""
        return self._kernel is not None and not self._kernel.died.done()

    @property
    def why_it_died(self) -> str:
        """Why the kernel died, if its provisioner knows (a time limit, for example); else an empty string."""
        return self._kernel.why() if self._kernel is not None else ""

    @property
    def sandbox_id(self) -> str | None:
        """The name of the sandbox or container in which the kernel runs, or None."""
        return self._kernel.sandbox_id if self._kernel is not None else None

    @property
    def python(self) -> str:
        """The version of the kernel's Python; empty if it is unknown."""
        return self._kernel.python if self._kernel is not None else ""

    @property
    def missing_libraries(self) -> frozenset[str]:
        """Libraries of tables and arrays that the kernel lacks; it has these values as lists and dicts."""
        return frozenset() if self._comm is None else frozenset(self._comm.missing)

    async def run(
        self,
        code: str,
        timeout: float | None = None,  # noqa: ASYNC109 (it ends the cell, not us)
        room: OutputRoom | None = None,
    ) -> CellResult:
        """Run a cell as a notebook would.

        Args:
            code: the cell; magics and top-level `await` work.
            timeout: seconds after which it is interrupted, and `INTERRUPT_GRACE` later killed with the kernel; the
                environment's `cell_timeout` when None.
            room: shared by the outputs of several cells; None: for this cell only.

        Raises:
            KernelError: there is no live kernel; `restart` makes one.
        """
        comm, started, room = self._live()[1], time.perf_counter(), room or OutputRoom()
        comm.cell_starts()
        try:
            with pool.running_cell():
                request = self._execute(code, room.collector())
                status = await self._finish(request, timeout or self._environment.cell_timeout)
        finally:
            self._request = None
            comm.cell_ended()
        room.spend(request.collector)
        report = self._comm.report if self._comm is not None else None
        return request.result(code, status, report, time.perf_counter() - started, alive=self.alive)

    async def set(self, name: str, value: Any) -> None:
        """Set a variable of the REPL; from then on the guest restores it when a cell overwrites it.

        Raises:
            ConfigError: the value cannot be sent, or the kernel cannot read it.
            KernelError: the kernel died meanwhile.
        """
        try:
            encoding, buffer = await asyncio.to_thread(encode_for_sending, value)
        except (PicklingError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{name} cannot be sent to the kernel ({error}): {GIVE_PLAIN}.") from error
        await self.put(name, encoding, buffer)

    async def define(self, card: dict[str, Any]) -> None:
        """Make a function in the REPL that calls a tool of the responder (`Tool.card`).

        Raises:
            KernelError: the kernel died meanwhile.
        """
        await self.put(card["name"], "tool", pack(card))

    async def put(self, name: str, encoding: Encoding, buffer: bytes | memoryview) -> None:
        """`set` for an encoded value, such as a pickle from a file: only the kernel unpickles it."""
        kernel, comm = self._live()
        self._puts += 1
        put = f"p{self._puts}"
        stored = comm.stored[put] = asyncio.get_running_loop().create_future()
        data: Data = {"wire": WIRE, "op": "put", "id": put, "name": name, "encoding": encoding}
        kernel.channels.send("control", "comm_msg", {"comm_id": COMM_ID, "data": data}, buffers=[buffer])
        del buffer
        await asyncio.wait({stored, kernel.died}, return_when=asyncio.FIRST_COMPLETED)
        if not stored.done():
            raise KernelError(f"The kernel died while it received {name}. Is there enough memory?")
        if stored.result() is not None:
            do = self._environment.how_to_read(stored.result())
            raise ConfigError(f"The kernel cannot read {name}: {stored.result()}. {do}")

    async def report(self, name: str, *, plain: bool = False) -> CellReport | None:
        """The guest's report when the value of a variable is taken as the answer; None: the kernel gave none.

        It is interrupted after `READ_SECONDS`.

        Args:
            name: the variable.
            plain: whether no code of the cells may run for it: what is not JSON comes as in `CellReport.values`.
        """
        comm = self._live()[1]
        comm.report = None
        request = self._execute(_READ, metadata={"rlm": {"name": name, "plain": plain}})
        try:
            status = await self._finish(request, min(READ_SECONDS, self._environment.cell_timeout or READ_SECONDS))
        finally:
            self._request = None
        return comm.report if status == "ok" else None

    async def end_question(self) -> str:
        """End what the cells have started: tasks, threads, processes, callbacks. Variables stay.

        The first call ends nothing. It notes what is there, so what the setup has started is never ended.

        Returns:
            What goes on in spite of it; empty: nothing.
        """
        kernel, request = self._live()[0], self._execute(_END_QUESTION)
        try:
            status = await self._finish(request, END_SECONDS)
        finally:
            self._request = None
        if status == "ok":
            return "" if await kernel.end_others() else "a process"
        why = (request.reply or {}).get("evalue")
        return why[:MAX_WHY] if status == "error" and isinstance(why, str) and why else "something"

    def interrupt(self) -> None:
        """Interrupt the running cell, and answer its questions as cancelled."""
        kernel, comm = self._live()
        comm.interrupt()
        kernel.interrupt()
        if self._request is not None:
            self._request.give_grace(INTERRUPT_GRACE)

    async def restart(self) -> None:
        """Replace the kernel by a new one, with the guest and `setup_code`. All variables are lost, `set` ones too.

        Raises:
            KernelError: it did not start.
        """
        await self.close()
        await self._start()

    async def close(self) -> None:
        """End the kernel and the tasks that wait for it. Idempotent."""
        comm, self._comm = self._comm, None
        kernel, self._kernel = self._kernel, None
        try:
            if kernel is not None:
                await kernel.kill()
        finally:
            if comm is not None:
                await shielded(comm.close())

    async def quiet(self) -> None:
        """Answer all questions in flight as cancelled. The kernel continues."""
        if self._comm is not None:
            await self._comm.quiet()

    # -- start

    async def _start(self) -> None:
        comm = self._comm = HostComm(self._send_to_guest, self._responder)
        self._kernel = await self._new_kernel(self._receiver(comm))
        for code in self._environment.setup:
            await self._set_up(code)

    async def _new_kernel(self, receiver: Receiver) -> Kernel:
        """A kernel with the guest in it."""
        return await pool.take_kernel(self._environment, self._seed, receiver)

    async def _set_up(self, code: str) -> None:
        cell = await self.run(code)
        if cell.status != "ok":
            why = cell.error.traceback if cell.error else f"it ended with {cell.status!r}"
            raise ConfigError(f"environment_kwargs['setup_code'] failed:\n{why}")

    # -- requests

    def _live(self) -> tuple[Kernel, HostComm]:
        if self._kernel is None or self._comm is None or self._kernel.died.done():
            raise KernelError("There is no live kernel: it was closed, or it died. restart() makes a new one.")
        return self._kernel, self._comm

    def _execute(
        self, code: str, collector: OutputCollector | None = None, metadata: dict[str, Any] | None = None
    ) -> CellExecution:
        """Send a request: a cell, whose outputs are collected, or silent code."""
        store_history = collector is not None
        content = {
            "code": code,
            "silent": not store_history,
            "store_history": store_history,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        message = self._live()[0].channels.send("shell", "execute_request", content, metadata=metadata)
        self._request = CellExecution(message, collector or OutputCollector())
        return self._request

    async def _finish(self, request: CellExecution, timeout: float | None) -> CellStatus:  # noqa: ASYNC109
        """Wait for the end of a request. After `timeout` interrupt it, and then kill the kernel."""
        kernel = self._live()[0]
        watch = Watch(
            kernel.channels, request, lambda call: self._send_to_guest("check", call, None), kernel.cpu_seconds
        )
        try:
            return await self._end_of(request, kernel, timeout)
        finally:
            watch.end()

    async def _end_of(self, request: CellExecution, kernel: Kernel, timeout: float | None) -> CellStatus:  # noqa: ASYNC109
        waiting = {request.over, request.overdue, kernel.died}
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if kernel.channels.cut.done():  # output may be lost, even if the end of the cell arrived by a new connection
            await asyncio.wait({kernel.died})
            return "died"
        if request.over.done():
            return "error" if (request.reply or {}).get("status") == "error" else "ok"
        if kernel.died.done():
            return "died"
        if not request.overdue.done():
            self.interrupt()
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not request.over.done():
            await self.close()
        return "timeout"

    # -- messages

    def _send_to_guest(self, op: ToGuest, call: str, payload: bytes | None) -> None:
        if self._kernel is not None:
            data: Data = {"wire": WIRE, "op": op, "id": call}
            buffers = [] if payload is None else [payload]
            content = {"comm_id": COMM_ID, "data": data}
            self._kernel.channels.send("control", "comm_msg", content, buffers=buffers)

    def _receiver(self, comm: HostComm) -> Receiver:
        """The handler of each kind of message of a kernel."""
        return Receiver(
            {
                ("iopub", "comm_msg", "ask"): comm.take_question,
                ("iopub", "comm_msg", "cancel"): comm.take_cancel,
                ("iopub", "comm_msg", "stored"): comm.take_stored,
                ("iopub", "comm_msg", "report"): self._take_report,
                ("iopub", "comm_msg", "running"): self._take_check,
                ("iopub", "comm_msg", "waiting"): self._take_check,
                ("iopub", "status", ""): self._take_status,
                **{("iopub", kind, ""): self._take_output for kind in OUTPUT_TYPES},
                ("iopub", UNREADABLE, ""): self._take_unreadable,
                ("shell", "execute_reply", ""): self._take_reply,
                ("control", "interrupt_reply", ""): lambda _: comm.interrupted(),
            },
            self._note_too_much,
        )

    def _take_report(self, message: dict[str, Any]) -> None:
        """Take the report of our cell. A cell of another attached client also makes one."""
        if self._comm and self._request and message["parent_header"]["msg_id"] == self._request.id:
            self._comm.take_report(message)

    def _take_check(self, message: dict[str, Any]) -> None:
        """Take the answer to a `check` of the running request."""
        data, request = message["content"]["data"], self._request
        if request is not None and data["id"] == request.id:
            request.checks = 0
            request.waits = request.waits + 1 if data["op"] == "waiting" else 0

    def _take_status(self, message: dict[str, Any]) -> None:
        request = self._request_of(message)
        is_idle = message["content"]["execution_state"] == "idle"
        if request is not None and is_idle and message["parent_header"]["msg_id"] == request.id:
            request.idle = True
            request.check()

    def _take_output(self, message: dict[str, Any]) -> None:
        request, kind = self._request_of(message), message["header"]["msg_type"]
        if request is not None and (output := request.collector.add(kind, message["content"])) is not None:
            self._on_output(output)

    def _take_reply(self, message: dict[str, Any]) -> None:
        request, content = self._request, message["content"]
        if request is not None and message["parent_header"]["msg_id"] == request.id and isinstance(content, dict):
            request.reply = {name: content[name] for name in _READ_OF_REPLY if name in content}
            request.check()

    def _take_unreadable(self, message: dict[str, Any]) -> None:
        self._note(f"A message of the kernel was not read: {message['content']['why']}.")

    def _request_of(self, message: dict[str, Any]) -> CellExecution | None:
        """The running request, if the message belongs to it or to what it started."""
        is_ours = self._kernel and message["parent_header"].get("session") == self._kernel.session_id
        return self._request if is_ours else None

    def _note_too_much(self, error: Exception) -> None:
        if isinstance(error, TooMuchError):
            self._note(str(error))

    def _note(self, text: str) -> None:
        """Add a note for the model to the outputs of the running cell."""
        if self._request is not None:
            self._request.note(text)
