"""The host's side of reading documents: a child process, which is replaced when it is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from rlm_kernel.documents.found import MAX_DOCUMENT_BYTES, MAX_MEMBERS
from rlm_kernel.untrusted.text_files import Found, TooLargeError

MAX_SECONDS = 60.0
"""For one document."""

MAX_SECONDS_TOGETHER = 300.0
"""For all documents of a folder."""

MAX_MEMORY_BYTES = 2 << 30
"""Of the child process."""

_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_MAX_HEAD = 1 << 18
_TEXTS = frozenset({"pieces", "texts", "whole"})
_ROOT = str(Path(__file__).resolve().parents[2])


def _environment() -> dict[str, str]:
    """The variables of the child: where it finds its modules and libraries, and no keys."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "PATH": os.defpath, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}


class _Answer:
    """What the child has said about a file until now.

    Args:
        room: bytes of text that it may have.
    """

    def __init__(self, room: int) -> None:
        self._found = Found()
        self._room = room
        self._member = ""
        self._pieces: list[str] = []
        self._pieces_size = 0

    def make_room(self, kind: str, size: int) -> None:
        """Count a text that comes.

        Raises:
            TooLargeError: there is no room for it.
        """
        if kind == "whole":
            self._room += self._pieces_size
        if kind in _TEXTS:
            self._room -= size
        if self._room < 0 or size < 0 or (kind not in _TEXTS and size > _MAX_HEAD):
            raise TooLargeError(-self._room)

    def take(self, kind: str, member: str, content: bytes) -> None:
        """Keep what the child says about a member. The pieces of a text come one after the other."""
        text = content.decode("utf-8", "surrogatepass")
        if kind == "notes":
            self._found.add_note(member, text)
        elif kind == "unread":
            self._close()
            self._found.unread[member] = text
        elif kind in _TEXTS:
            if kind == "whole":
                self._pieces.clear()
            self._member = member
            self._pieces.append(text)
            self._pieces_size += len(content)
            if kind != "pieces":
                self._close()
        else:
            raise ValueError(f"no answer of ours: {kind}")

    def _close(self) -> None:
        """Join the pieces of a text."""
        if self._pieces:
            self._found.texts[self._member] = "".join(self._pieces)
            self._pieces.clear()
        self._pieces_size = 0

    def end(self, why: str) -> Found:
        """What was found.

        Args:
            why: the rest was not read; empty: all was.
        """
        found = self._found
        if self._pieces:
            self._close()
            found.unread[self._member] = why
        if why:
            found.unread[""] = why
        read = {"", *found.texts} if found.texts else set[str]()
        for member in sorted(read & found.unread.keys()):
            found.add_note(member, f"the rest was not read: {found.unread.pop(member)}")
        return found


class DocumentReader:
    """Reads documents in a child process; a context manager.

    The child starts with the first document. It has no key of the host in its environment. When a document takes
    too long, it is killed with all that it started; what it had found until then is kept.

    Args:
        max_seconds: for one document.
        max_seconds_together: for all of them; the rest is not read.
    """

    def __init__(
        self, max_seconds: float | None = None, max_seconds_together: float | None = None, max_memory: int | None = None
    ) -> None:
        self._max_seconds = MAX_SECONDS if max_seconds is None else max_seconds
        self._left = MAX_SECONDS_TOGETHER if max_seconds_together is None else max_seconds_together
        self._max_memory = MAX_MEMORY_BYTES if max_memory is None else max_memory
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._read = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end()

    def read(self, file: BinaryIO, name: str, room: int, wal: BinaryIO | None = None) -> Found:
        """What a document holds.

        Args:
            file: a regular file, open.
            name: its suffix may say what it is.
            room: bytes of text that there is room for.
            wal: the write-ahead log of an SQLite database.
        """
        answer, start = _Answer(room), time.monotonic()
        seconds = min(self._max_seconds, self._left)
        if seconds <= 0:
            return Found(unread={"": "the time for documents is over"})
        why = ""
        try:
            self._ask([file] if wal is None else [file, wal], name, min(room, MAX_DOCUMENT_BYTES), seconds)
            self._collect(answer, start + seconds)
        except TimeoutError:
            self._end()
            why = f"it takes more than {seconds:g} seconds"
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = self._why(error)
        finally:
            self._left -= time.monotonic() - start
        return answer.end(why)

    def _ask(self, files: list[BinaryIO], name: str, room: int, seconds: float) -> None:
        if self._socket is None:
            self._start()
        assert self._socket is not None
        self._socket.settimeout(seconds)
        files[0].seek(0)
        line = json.dumps({"name": name[-200:], "room": room}).encode("ascii") + b"\n"
        socket.send_fds(self._socket, [line], [file.fileno() for file in files])

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            limits = [str(theirs.fileno()), str(int(self._max_seconds) + 1), str(self._max_memory)]
            self._child = subprocess.Popen(  # noqa: S603 (our own module)
                [sys.executable, "-P", "-m", "rlm_kernel.documents.child", *limits],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd="/",
            )

    def _collect(self, answer: _Answer, deadline: float) -> None:
        left = 4 * MAX_MEMBERS
        while left:
            head = json.loads(self._line(deadline))
            kind, size = head["kind"], head["size"]
            if kind == "end":
                return
            left -= kind != "pieces" or not size
            answer.make_room(kind, size)
            answer.take(kind, str(head["member"]), self._bytes(size, deadline))
        raise ValueError("it holds too many files")

    def _line(self, deadline: float) -> bytes:
        while (end := self._read.find(b"\n")) < 0:
            if len(self._read) > _MAX_HEAD:
                raise ValueError("no answer of ours")
            self._receive(deadline)
        return self._taken(end + 1)

    def _bytes(self, size: int, deadline: float) -> bytes:
        while len(self._read) < size:
            self._receive(deadline)
        return self._taken(size)

    def _taken(self, size: int) -> bytes:
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken

    def _receive(self, deadline: float) -> None:
        assert self._socket is not None
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        piece = self._socket.recv(1 << 20)
        if not piece:
            raise ConnectionError("the child ended")
        self._read += piece

    def _why(self, error: Exception) -> str:
        """Why the child has ended, after it was waited for."""
        child = self._child
        if child is not None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(1)
        self._end()
        if child is not None and child.returncode == -signal.SIGXCPU:
            return f"it takes more than {self._max_seconds:g} seconds"
        if child is not None and child.returncode not in {0, None}:
            return f"the process that read it ended ({child.returncode}): probably it needs too much memory"
        return f"it cannot be read ({error})"

    def _end(self) -> None:
        child, self._child = self._child, None
        ours, self._socket = self._socket, None
        self._read.clear()
        if ours is not None:
            ours.close()
        if child is not None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
