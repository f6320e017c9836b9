"""Sign logs with a key of the user, as Jupyter signs notebooks, so that the logs of other users are recognised.

Each line ends with the MAC of itself and of all lines before it. So the log of a run that was killed is signed up to
its last line, and the signature ends at a line that was altered, removed, added or taken from another log. The files of
an input or a prompt have the hash of their content as their name.

The key is a file of Jupyter's data folder, which only its owner can read. Every process that can read it can sign: all
processes of this user, the kernels of `local` among them.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from rlm_kernel.errors import RecordingError
from rlm_kernel.trajectory.log.atomic_files import write_whole
from rlm_kernel.untrusted.json_text import read_file

KEY_FILE = "rlm_log_secret"
_KEY_BYTES = 32
_MAC_CHARACTERS = 64
_BEFORE, _AFTER = b',"mac":"', b'"}'
_SUFFIX = len(_BEFORE) + _MAC_CHARACTERS + len(_AFTER)
_BEGINNING = b"rlm log 1"
_MAX_LOG_BYTES = 1 << 32
_CAREFULLY = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))


class Chain:
    """The running MAC over the lines of one log, for its writer and its readers.

    Args:
        key: of the user.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._latest = _BEGINNING

    def signed(self, line: bytes) -> bytes:
        """A line, a JSON object without its newline, with its MAC as the last field."""
        body = line[:-1]
        return body + _BEFORE + self._next(body).encode("ascii") + _AFTER

    def holds(self, line: bytes) -> bool:
        """Whether a line, without its newline, carries the MAC that comes next."""
        mac = line[-_SUFFIX + len(_BEFORE) : -len(_AFTER)]
        return hmac.compare_digest(self._next(unsigned(line, close=False)).encode("ascii"), mac)

    def _next(self, body: bytes) -> str:
        self._latest = hmac.digest(self._key, self._latest + body, "sha256")
        return self._latest.hex()


def unsigned(line: bytes, *, close: bool = True) -> bytes:
    """A line without its MAC, if it carries one. `close`: as a JSON object, and not without its last brace."""
    if line.endswith(_AFTER) and line[-_SUFFIX:].startswith(_BEFORE):
        return line[:-_SUFFIX] + (b"}" if close else b"")
    return line if close else line[:-1]


class Check:
    """Checks the signature of a log line by line.

    Attributes:
        flaw: the problem of the first line that is not signed by this user, or None.
    """

    def __init__(self) -> None:
        self.flaw: str | None = None
        self._chain: Chain | None = None
        try:
            self._chain = Chain(key())
        except OSError as error:
            self.flaw = f"your key cannot be read ({error})"

    def take(self, number: int, raw: bytes) -> None:
        """The next line, as it is in the file."""
        if self.flaw is None and self._chain is not None and not self._chain.holds(raw.rstrip(b"\r\n")):
            self.flaw = (
                "it is not signed with your key"
                if number == 1
                else f"line {number} is not as you wrote it, or not yours"
            )


def sign(log: Path) -> None:
    """Sign a log with the key of this user, in place of any other signature.

    Raises:
        OSError: it cannot be read or written, or there is no key.
        RecordingError: it is not a log.
    """
    chain, (*lines, _) = Chain(key()), _whole(log).split(b"\n")  # readers skip a line that is cut
    if not all(line.rstrip().endswith(b"}") for line in lines):
        raise RecordingError(f"{log} is not the log of a run: one of its lines is not a JSON object.")
    write_whole(log, b"".join(chain.signed(unsigned(line.rstrip())) + b"\n" for line in lines))


def _whole(log: Path) -> bytes:
    try:
        return read_file(log, _MAX_LOG_BYTES)
    except ValueError as error:
        raise RecordingError(f"{log} is not the log of a run: {error}.") from error


def key() -> bytes:
    """The key of this user, created by the first call.

    Raises:
        OSError: it cannot be read or made, or is not safe: another user owns it or may read it.
    """
    from jupyter_core.paths import jupyter_data_dir

    path = Path(jupyter_data_dir()) / KEY_FILE
    with suppress(FileNotFoundError):
        return _read(path)
    _make(path)
    return _read(path)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | _CAREFULLY)
    with os.fdopen(descriptor, "rb") as file:
        known = os.fstat(descriptor)
        safe = stat.S_ISREG(known.st_mode) and not known.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        if hasattr(os, "getuid") and (known.st_uid != os.getuid() or not safe):
            raise PermissionError(f"{path} is not safe: you must own it, and no other user may read it")
        found = file.read(_KEY_BYTES + 1)
    if len(found) != _KEY_BYTES:
        raise OSError(f"{path} does not hold a key: remove it, and sign your logs again with `rlm trust`")
    return found


def _make(path: Path) -> None:
    """Write a new key atomically. If two processes do this at the same time, the first key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{KEY_FILE}.{secrets.token_hex(8)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFULLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)
