"""The logs of runs on workers. A worker that shares the driver's disk writes them there; any other sends them home.

A line of a record is sent as soon as it is written. So if a worker is lost, its run is resumed elsewhere from the lines
that are home. Driver and worker sign records with their own keys: the connection between them is trusted.
"""

from __future__ import annotations

import hmac
import shutil
import warnings
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rlm_kernel._async import run_in_thread
from rlm_kernel.batch.engines.messages import FilePart, Outbox
from rlm_kernel.batch.runs import LocalRuns
from rlm_kernel.provisioners.local_base import private_directory
from rlm_kernel.trajectory.log import signature
from rlm_kernel.trajectory.log.file_names import RECORD, file_beside
from rlm_kernel.trajectory.log.logger import RLMLogger, RunLog
from rlm_kernel.trajectory.log.signature import Chain, unsigned

MakeLogger = Callable[[Path, str], RLMLogger]

PART_BYTES = 1 << 22


# -- the driver


@contextmanager
def proof(log_dir: Path, batch: str) -> Iterator[None]:
    """A context in which the folder of the logs has a file that only this user can write."""
    path = log_dir / f".{batch}"
    with suppress(OSError):  # a full disk: the workers send their logs, and their runs go on without those
        log_dir.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_signed(batch))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def has_proof(log_dir: Path, batch: str) -> bool:
    """Whether this process sees the driver's folder, and has the same key to sign records with."""
    try:
        return hmac.compare_digest((log_dir / f".{batch}").read_bytes(), _signed(batch))
    except OSError:
        return False


def _signed(batch: str) -> bytes:
    return hmac.digest(_key() or b"", batch.encode(), "sha256")


def _key() -> bytes | None:
    with suppress(OSError):  # the logs are not signed, then; the logger says so
        return signature.key()
    return None


class Records:
    """The folder of the logs at the driver.

    Args:
        log_dir: the folder.
        configuration: of the `RLM`. A record of another one is not resumed.
    """

    def __init__(self, log_dir: Path, configuration: Mapping[str, Any]) -> None:
        self._log_dir, self._configuration = log_dir, configuration
        self._chains: dict[str, dict[str, Chain]] = defaultdict(dict)
        self._failed: set[str] = set()

    def earlier(self, name: str) -> tuple[bytes, ...]:
        """The records of a task's earlier runs. `name`: how the names of its logs begin."""
        found = LocalRuns(_never, self._configuration, self._log_dir).recordings(name)
        return tuple(one.path.read_bytes() for one in found)

    def take(self, part: FilePart) -> None:
        """Write a part of a file. After a failure the rest of the file is left out."""
        if part.is_first:
            self._failed.discard(part.name)
        if part.name in self._failed:
            return
        try:
            self._write(part)
        except OSError as error:
            self._failed.add(part.name)
            warnings.warn(f"The log {part.name} could not be written: {error}.", RuntimeWarning, stacklevel=2)

    def _write(self, part: FilePart) -> None:
        path = self._log_dir / part.name
        if not path.resolve().is_relative_to(self._log_dir.resolve()):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        content = part.content
        if part.name.endswith(RECORD):
            chains = self._chains[part.task]
            if part.is_first and (key := _key()) is not None:
                chains[part.name] = Chain(key)
            content = _signed_again(content, chains.get(part.name))
        with path.open("wb" if part.is_first else "ab") as file:
            file.write(content)

    def forget(self, task: str) -> None:
        """Forget a task that has its result."""
        self._chains.pop(task, None)


def _signed_again(lines: bytes, chain: Chain | None) -> bytes:
    """Lines of a record with another signature."""
    bodies = map(unsigned, lines.splitlines())
    return b"".join((body if chain is None else chain.signed(body)) + b"\n" for body in bodies)


def _never(*_: object) -> NoReturn:
    raise AssertionError("it only finds records")


# -- a worker that does not share the disk


class Home:
    """Keeps the logs of runs in folders of their own until they are sent.

    Args:
        outbox: to the driver.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._folder = private_directory()
        self._sent: set[str] = set()

    @asynccontextmanager
    async def task(self, task: str, name: str) -> AsyncIterator[tuple[Path, MakeLogger]]:
        """A context with the folder of a task and what makes its logger. At the end its files are sent.

        Args:
            task: its id.
            name: how the names of its logs begin.
        """
        folder = self._folder / name
        folder.mkdir()
        sender = _RecordSender(task, self._outbox)
        try:
            yield folder, sender.logger
        finally:
            sender.send()
            parts = self._parts(task, folder)
            while (part := await run_in_thread(lambda: next(parts, None))) is not None:
                self._outbox.put(part)
                await self._outbox.flush()  # a large file is not in memory as a whole
            await run_in_thread(lambda: shutil.rmtree(folder))

    def close(self) -> None:
        """Remove all folders."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _parts(self, task: str, folder: Path) -> Iterator[FilePart]:
        """The files of a run, but not the records, nor the inputs and prompts that were sent before."""
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if not path.is_file() or name.endswith(RECORD) or name in self._sent:
                continue
            if "/" in name:  # it is named after its content
                self._sent.add(name)
            with path.open("rb") as file:
                yield FilePart(task, name, file.read(PART_BYTES), is_first=True)
                while content := file.read(PART_BYTES):
                    yield FilePart(task, name, content, is_first=False)


@dataclass(slots=True)
class _RecordSender:
    """Sends each line of the record of a run as soon as it is written.

    Attributes:
        task: whose run it is.
        outbox: to the driver.
        record: the path of the record; None: there is none yet.
        size: how many bytes of it were sent.
    """

    task: str
    outbox: Outbox
    record: Path | None = None
    size: int = 0

    def logger(self, log_dir: Path, file_name: str) -> RLMLogger:
        """The logger of the run."""
        return _Logger(self, log_dir, file_name)

    def send(self, _: object = None) -> None:
        """Send the new lines."""
        if self.record is None or not self.record.is_file():
            return
        with self.record.open("rb") as file:
            file.seek(self.size)
            content = file.read()
        if whole := content[: content.rfind(b"\n") + 1]:
            self.outbox.put(FilePart(self.task, self.record.name, whole, is_first=self.size == 0))
            self.size += len(whole)


class _Logger(RLMLogger):
    """A logger whose record is sent. Args: the sender, and those of an `RLMLogger`."""

    def __init__(self, sender: _RecordSender, log_dir: Path, file_name: str) -> None:
        super().__init__(log_dir, file_name)
        self._sender = sender

    def start(self, *args: Any, **kwargs: Any) -> RunLog:
        """Begin the log of a completion."""
        log = super().start(*args, **kwargs)
        if self.log_file_path is not None:
            self._sender.record = file_beside(Path(self.log_file_path), RECORD)
            log.readers.append(self._sender.send)  # after the writer of the record
        return log


def write_signed(path: Path, record: bytes) -> None:
    """Write a record, with the signature of this user."""
    key = _key()
    path.write_bytes(_signed_again(record, None if key is None else Chain(key)))
