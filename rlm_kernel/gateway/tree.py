"""The files of a repository that may leave it.

A path is opened name by name, each relative to the descriptor of its parent, and no name may be a link: what is checked
is what is read. Refused are links, hard links, devices, pipes, other file systems, restricted names, and what a
`.gitignore` excludes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import re2
from pathspec import GitIgnoreSpec

from rlm_kernel.errors import ConfigError
from rlm_kernel.gateway.limits import MAX_FILE_BYTES, MAX_PATH_CHARACTERS
from rlm_kernel.gateway.refusals import NotAllowedError, NotFoundError, NotReadableError, RefusedError

Parts = tuple[str, ...]

NO_PATTERN = (ValueError, re.error, re2.error)
"""What `pathspec` raises, itself or from its backend, for a line that is no pattern."""

RESTRICTED = frozenset(
    ".git .hg .svn __pycache__ .venv venv env node_modules .pytest_cache .env secrets credentials .secret .secrets"
    " .ssh .aws .gnupg .docker .kube .netrc .npmrc .pypirc .pgpass .htpasswd .envrc .vault-token .git-credentials"
    " id_rsa id_dsa id_ecdsa id_ed25519 id_ecdsa_sk id_ed25519_sk".split()
)
"""Names that are never listed or read, whatever their extension is: `.env` and `.env.local`, but not `environments`."""

RESTRICTED_ENDINGS = (".env", ".pem", ".key", ".ppk", ".p12", ".pfx", ".jks", ".keystore", ".kdbx")

MAX_DEPTH = 100
_MAX_RULES_BYTES = 1 << 20
_MAX_RULES = 4096
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
_COPY = re.compile(r"(\.(bak|backup|old|orig|save|swp|tmp))+$")
_NOT_PLAIN = "Access denied: links, hard links and devices are not read"
_NOT_FOUND = "File not found: the path names no file that can be read"


@dataclass(frozen=True)
class Entry:
    """A file or folder. `parts`: its path below the root. `about`: of `lstat`."""

    parts: Parts
    about: os.stat_result

    @property
    def path(self) -> str:
        """The path below the root."""
        return "/".join(self.parts)

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder."""
        return stat.S_ISDIR(self.about.st_mode)


@dataclass(frozen=True)
class Text:
    """The content of a text file. `hash`: of its bytes."""

    lines: tuple[str, ...]
    hash: str


@dataclass(frozen=True)
class _Rules:
    """The `.gitignore` files from the root down to a folder, each with the depth of its folder."""

    specs: tuple[tuple[int, GitIgnoreSpec], ...] = ()

    def exclude(self, parts: Parts, *, is_folder: bool) -> bool:
        """Whether the deepest rule that matches excludes the path."""
        for depth, spec in reversed(self.specs):
            include = spec.check_file("/".join(parts[depth:]) + "/" * is_folder).include
            if include is not None:
                return include
        return False


class Tree:
    """A repository, opened once. A root that is replaced later by a link changes nothing.

    Args:
        root: its folder.

    Raises:
        ConfigError: it cannot be opened.
    """

    def __init__(self, root: Path) -> None:
        try:
            self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"The repository {root} cannot be opened ({error}): give its folder.") from error
        self._device = os.fstat(self._fd).st_dev
        self._specs: OrderedDict[tuple[int, ...], tuple[GitIgnoreSpec, ...]] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor of the root."""
        os.close(self._fd)

    def is_folder(self, parts: Parts) -> bool:
        """Whether there is a folder that may be listed."""
        try:
            with self._folder(parts):
                return True
        except RefusedError:
            return False

    def check_file(self, parts: Parts) -> None:
        """Raise `RefusedError` unless there is a file that may be read."""
        with self._file(parts):
            return

    def walk(self, parts: Parts, depth: int) -> Iterator[Entry]:
        """The files and folders below a folder, in the order of their names, folders before what they hold.

        Args:
            parts: the folder.
            depth: how many levels; 1: only the folder itself.

        Raises:
            RefusedError: the folder does not exist, or may not be listed.
        """
        with self._folder(parts) as (fd, rules):
            yield from self._walk(fd, rules, parts, depth)

    def read(self, parts: Parts) -> Text:
        """The content of a text file. Bytes that are not UTF-8 are replaced.

        Raises:
            RefusedError: the file does not exist, may not be read, is too large or is not text.
        """
        raw = self.read_bytes(parts)
        if b"\0" in raw:
            raise NotReadableError(f"Binary file: {len(raw):,} bytes, which are not shown")
        lines = raw.decode("utf-8", "replace").split("\n")
        return Text(tuple(lines if lines[-1] else lines[:-1]), digest(raw))

    def read_bytes(self, parts: Parts) -> bytes:
        """The bytes of a file. Raises what `read` raises."""
        with self._file(parts) as file:
            size = os.fstat(file.fileno()).st_size
            raw = file.read(MAX_FILE_BYTES + 1) if size <= MAX_FILE_BYTES else b""
        if max(size, len(raw)) > MAX_FILE_BYTES:
            raise NotReadableError(f"File too large: {size:,} > {MAX_FILE_BYTES:,} bytes")
        return raw

    def _walk(self, fd: int, rules: _Rules, parts: Parts, depth: int) -> Iterator[Entry]:
        for name in sorted(os.listdir(fd)):
            here = (*parts, name)
            entry = self._entry(fd, rules, here)
            if entry is None:
                continue
            yield entry
            if entry.is_folder and depth > 1 and len(here) < MAX_DEPTH:
                with contextlib.suppress(OSError, RefusedError), self._step(fd, rules, here) as (below, more):
                    yield from self._walk(below, more, here, depth - 1)

    def _entry(self, fd: int, rules: _Rules, parts: Parts) -> Entry | None:
        """What a name stands for, or None if it is not shown."""
        name = parts[-1]
        if is_restricted(name) or not name.isprintable():
            return None
        try:
            about = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return None
        is_folder = stat.S_ISDIR(about.st_mode)
        shown = about.st_dev == self._device and (is_folder or _is_plain(about))
        if not shown or rules.exclude(parts, is_folder=is_folder):
            return None
        return Entry(parts, about)

    @contextlib.contextmanager
    def _folder(self, parts: Parts) -> Iterator[tuple[int, _Rules]]:
        with contextlib.ExitStack() as stack:
            fd = os.dup(self._fd)
            stack.callback(os.close, fd)
            rules = self._with_rules_of(fd, _Rules(), 0)
            for length in range(1, len(parts) + 1):
                try:
                    fd, rules = stack.enter_context(self._step(fd, rules, parts[:length]))
                except OSError:
                    raise NotFoundError("Not a directory: the path names no folder that can be listed") from None
            yield fd, rules

    @contextlib.contextmanager
    def _step(self, fd: int, rules: _Rules, parts: Parts) -> Iterator[tuple[int, _Rules]]:
        """The folder of the last name, opened below `fd`."""
        if is_restricted(parts[-1]) or rules.exclude(parts, is_folder=True):
            raise NotAllowedError("Access denied: the path is restricted or ignored")
        below = os.open(parts[-1], _FLAGS | os.O_DIRECTORY, dir_fd=fd)
        try:
            if os.fstat(below).st_dev != self._device:
                raise NotAllowedError("Access denied: the path is on another file system")
            yield below, self._with_rules_of(below, rules, len(parts))
        finally:
            os.close(below)

    @contextlib.contextmanager
    def _file(self, parts: Parts) -> Iterator[BinaryIO]:
        if not parts:
            raise NotFoundError(_NOT_FOUND)
        with self._folder(parts[:-1]) as (fd, rules):
            if is_restricted(parts[-1]) or rules.exclude(parts, is_folder=False):
                raise NotAllowedError("Access denied: the path is restricted or ignored")
            try:
                if not _is_plain(os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)):
                    raise NotAllowedError(_NOT_PLAIN)  # to open a device may do something
                file = os.fdopen(os.open(parts[-1], _FLAGS, dir_fd=fd), "rb", buffering=0)
            except OSError:
                raise NotFoundError(_NOT_FOUND) from None
            with file:
                before = self._state(file, parts[-1], fd)
                yield file
                after = self._state(file, parts[-1], fd)
                if after.st_ctime_ns != before.st_ctime_ns and after.st_mtime_ns == before.st_mtime_ns:
                    raise NotAllowedError(_NOT_PLAIN)  # its names have changed, and not what it holds

    def _state(self, file: BinaryIO, name: str, folder: int) -> os.stat_result:
        """The state of an open file, found by its name.

        One call gives its name and their number: a link that was opened may have been replaced before they are counted.
        While it is replaced, Linux says one name too early. So this is asked before and after the file is read.

        Raises:
            RefusedError: it has another name, or this name is that of another file.
        """
        try:
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            raise NotFoundError(_NOT_FOUND) from None
        is_same = os.path.samestat(about, os.fstat(file.fileno()))
        if not is_same or not _is_plain(about) or about.st_dev != self._device:
            raise NotAllowedError(_NOT_PLAIN)
        return about

    def _with_rules_of(self, fd: int, rules: _Rules, depth: int) -> _Rules:
        """The rules with those of the `.gitignore` in a folder."""
        try:
            file = os.fdopen(os.open(".gitignore", _FLAGS, dir_fd=fd), "rb")
        except OSError:
            return rules
        with file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                return rules
            key = (about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size)
            specs = self._specs.get(key)
            if specs is None:
                lines = file.read(_MAX_RULES_BYTES).decode("utf-8", "replace").splitlines()
                specs = self._specs[key] = _specs_of(lines)
                if len(self._specs) > _MAX_RULES:
                    self._specs.popitem(last=False)
        return _Rules((*rules.specs, *((depth, spec) for spec in specs)))


def _specs_of(lines: list[str]) -> tuple[GitIgnoreSpec, ...]:
    """The rules of a file; the last that matches decides. Lines that are no pattern are left out, as Git does."""
    try:
        return (GitIgnoreSpec.from_lines(lines),)
    except NO_PATTERN:  # or the lines are too many for one automaton
        if len(lines) == 1:
            return ()
        half = len(lines) // 2
        return _specs_of(lines[:half]) + _specs_of(lines[half:])


def parts_of(path: str) -> Parts:
    """The names of a path relative to the root, without opening it.

    Raises:
        RefusedError: it is absolute, leads upward or cannot be a path.
    """
    if len(path) > MAX_PATH_CHARACTERS:
        raise RefusedError(f"Path too long: {len(path)} > {MAX_PATH_CHARACTERS} characters")
    if not path.isprintable():  # which are not listed either
        raise RefusedError("The path holds control characters, or others that are not printable")
    if path.startswith(("/", "~")) or "\\" in path:
        raise NotAllowedError("The path is absolute: give it relative to the repository, with '/' between names")
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    if ".." in names:
        raise NotAllowedError("Path traversal detected: the path contains '..'")
    if len(names) > MAX_DEPTH:
        raise RefusedError(f"The path is too deep: {len(names)} > {MAX_DEPTH} names")
    if any(map(is_restricted, names)):
        raise NotAllowedError("Access denied: the path is restricted or ignored")
    return names


def is_restricted(name: str) -> bool:
    """Whether files and folders of this name are never shown. An editor's copies of a file count as the file."""
    folded = unicodedata.normalize("NFKC", name).casefold().strip("~# ").rstrip(". ")
    stem = folded[:1] + folded[1:].partition(".")[0]
    whole = {folded, stem, stem.strip("~.")}
    is_named = not RESTRICTED.isdisjoint(whole) or folded.startswith((".env-", ".env_"))
    return is_named or _COPY.sub("", folded).endswith(RESTRICTED_ENDINGS)


def digest(content: bytes) -> str:
    """The hash that stands in results: the first 16 digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def _is_plain(about: os.stat_result) -> bool:
    """Whether this is a regular file with one name."""
    return stat.S_ISREG(about.st_mode) and about.st_nlink == 1
