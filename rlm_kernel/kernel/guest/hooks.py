"""What the guest changes in IPython and ipykernel."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .health import BROKEN

if TYPE_CHECKING:
    from .repl import Guest

LOOK_SECONDS = 1.0
MAX_FAILURES = 2
"""Cells in a row that IPython fails to run: what it needs is lost, and not put back."""


def skip_empty_flushes(stream: Any) -> None:
    """Make flushing an empty stream free. ipykernel flushes six times per cell, and waits for another thread each time.

    A stream is empty when its text was handed over to be sent. If not, the next message of the cell would overtake it.
    """
    if not hasattr(stream, "_buffers"):
        return
    flush, send, sending = stream.flush, stream._flush, []

    def tracked_send() -> None:
        sending.append(True)
        try:
            send()
        finally:
            sending.pop()

    def quick_flush() -> None:
        if stream._buffers or sending:  # in this order: the text leaves the buffers while it is sent
            flush()

    stream._flush, stream.flush = tracked_send, quick_flush


def end_whole(guest: Guest, execute: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `do_execute`: whatever a cell has done, there is a reply. No interrupt may be handled until it is sent."""
    leave, broken, main, ident = os._exit, BROKEN, threading.main_thread().ident, threading.get_ident
    failures = 0

    @functools.wraps(execute)
    async def do_execute(*args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        if ident() != main:  # a subshell, while a cell may run
            return await execute(*args, **kwargs)
        guest.execution_starts()
        failed = None
        try:
            reply = await execute(*args, **kwargs)
        except Exception as error:  # the cell has broken IPython
            failed = error
        finally:
            try:
                guest.execution_ended(has_failed=failed is not None)
            except BaseException:
                leave(broken)
                raise
        failures = 0 if failed is None else failures + 1
        if failures >= MAX_FAILURES:
            leave(broken)
        return reply if failed is None else guest.reply_of(failed)

    return do_execute


def note_reply(guest: Guest) -> None:
    """Note when the reply of a cell was sent, or has failed."""
    loop, main, ident = asyncio.get_running_loop(), threading.main_thread().ident, threading.get_ident
    handle, leave, broken = guest.kernel.shell_handlers["execute_request"], os._exit, BROKEN

    @functools.wraps(handle)
    async def execute_request(*message: Any) -> None:
        if ident() != main:
            await handle(*message)
            return
        try:
            await handle(*message)
        except Exception:  # there will be no reply
            leave(broken)
            raise
        finally:
            guest.is_executing, guest.ended_at = False, None
            loop.call_later(LOOK_SECONDS, guest.end_if_broken)  # a thread that a cell has broken ends when it wakes

    guest.kernel.shell_handlers["execute_request"] = execute_request


def wake_after_interrupt(kernel: Any) -> None:
    """Wake the event loop after an interrupt: a cell with `await` sees it only then, and ipykernel does not wake it."""
    interrupt = kernel.control_handlers["interrupt_request"]

    async def interrupt_request(*message: Any) -> None:
        await interrupt(*message)
        kernel.io_loop.add_callback(int)

    kernel.control_handlers["interrupt_request"] = interrupt_request


def escape_surrogates(session: Any) -> None:
    """Escape lone surrogates in messages, as Python does on stderr: UTF-8 has none, and the message would be lost."""
    pack = session.pack

    def pack_text(value: Any) -> bytes:
        try:
            packed: bytes = pack(value)
            if not packed.isascii():
                packed.decode()
        except UnicodeError:
            packed = pack(escaped(value))
        return packed

    session.pack = pack_text


def escaped(value: Any) -> Any:
    """A value of JSON's types with the lone surrogates of its texts as backslash escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {escaped(name): escaped(one) for name, one in value.items()}
    return [escaped(one) for one in value] if isinstance(value, (list, tuple)) else value


def remember_displays(guest: Guest, owner: Any, name: str) -> None:
    """Wrap a method of IPython that displays data, so that the guest keeps the pictures."""
    show = getattr(owner, name)

    def show_and_remember(data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        guest.remember(data)
        show(data, *args, **kwargs)

    setattr(owner, name, show_and_remember)
