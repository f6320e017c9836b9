"""Bearer keys: several, each with scopes, compared in constant time, and re-read when their file changes."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mcp.server.auth.provider import AccessToken

from rlm_kernel import terminal
from rlm_kernel.errors import ConfigError
from rlm_kernel.gateway.tools import SCOPES
from rlm_kernel.untrusted.json_text import read_file

MIN_CHARACTERS = 16
MAX_FILE_BYTES = 1 << 20
FORM = "each line must be NAME SCOPE,SCOPE KEY, with scopes of " + ", ".join(SCOPES)


@dataclass(frozen=True)
class Key:
    """A key. `digest`: SHA-256 of it; the key itself is not kept."""

    name: str
    scopes: tuple[str, ...]
    digest: bytes


class Keys:
    """Verifies the keys of requests, for the authentication of the SDK.

    Args:
        single: a key with all scopes, or None.
        file: of more keys, or None. It is read again when it changes; while it cannot be read, its keys are not valid.

    Raises:
        ConfigError: there is no key, or one is not usable.
    """

    def __init__(self, single: str | None, file: Path | None) -> None:
        self._single = [_key("default", ",".join(SCOPES), single)] if single else []
        self._file = file
        self._stamp: tuple[int, ...] = ()
        self._keys = [*self._single]
        if file is not None:
            self._stamp = _stamp(file)
            self._keys += read_keys(file)
        if not self._keys:
            raise ConfigError("HTTP needs a key: use --key-file or --oauth-issuer, or set RLM_GATEWAY_API_KEY.")

    async def verify_token(self, token: str) -> AccessToken | None:
        """The owner of a key, or None. Every key is compared, so the time does not depend on which one it is."""
        self._refresh()
        given = _digest(token)
        found = [key for key in self._keys if hmac.compare_digest(key.digest, given)]
        return AccessToken(token="", client_id=found[0].name, scopes=list(found[0].scopes)) if found else None

    def _refresh(self) -> None:
        if self._file is None:
            return
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = [*self._single, *read_keys(self._file)]
        except ConfigError as error:
            self._keys = [*self._single]
            terminal.print_note(f"rlm: gateway: {error}")


def read_keys(file: Path) -> list[Key]:
    """The keys of a file. Empty lines and those that begin with `#` are skipped.

    Raises:
        ConfigError: it cannot be read, other users may read it, or a line has another form.
    """
    try:
        if stat.S_IMODE(file.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"Other users may read the keys in {file}: chmod 600 it.")
        lines = read_file(file, MAX_FILE_BYTES).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{file} cannot be read: {error}.") from error
    fields = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    if any(len(line) != 3 for line in fields):  # noqa: PLR2004 (the three words of a line)
        raise ConfigError(f"{file} is no file of keys: {FORM}.")
    keys = [_key(*line) for line in fields]
    if len({key.name for key in keys}) < len(keys):
        raise ConfigError(f"{file}: two keys have the same name: sessions belong to names.")
    return keys


def key_of_environment(variables: Mapping[str, str] = os.environ) -> str | None:
    """The key in `RLM_GATEWAY_API_KEY`, or None."""
    return variables.get("RLM_GATEWAY_API_KEY") or None


def _key(name: str, scopes: str, key: str) -> Key:
    if len(key) < MIN_CHARACTERS:
        raise ConfigError(f"The key {name!r} is shorter than {MIN_CHARACTERS} characters: use `openssl rand -hex 32`.")
    named = tuple(scopes.split(","))
    if not set(named) <= set(SCOPES):
        raise ConfigError(f"The key {name!r} has an unknown scope: {FORM}.")
    return Key(name, named, _digest(key))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _stamp(file: Path) -> tuple[int, ...]:
    """Changes when the file changes; empty if it is not there."""
    try:
        about = file.stat()
    except OSError:
        return ()
    return about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_mode
