"""Where the conversations of `rlm acp` are kept: a folder for each, with its logs, its notebooks and a few facts.

A folder is all that a session is made of after the process ended. The newest log in it is the whole conversation.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rlm_kernel.text import one_line, plain
from rlm_kernel.trajectory.log.atomic_files import write_whole
from rlm_kernel.trajectory.log.file_names import RECORD, by_beginning
from rlm_kernel.untrusted import json_text

FACTS = "session.json"
MAX_TITLE = 80
_ID = re.compile(r"\A[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a session besides its log.

    Attributes:
        cwd: its working directory.
        title: the beginning of its first message.
        model: the chosen one; None: the default.
    """

    cwd: str
    title: str = ""
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """The folder of a session. `id`: its name."""

    id: str
    folder: Path

    @property
    def log(self) -> Path | None:
        """The newest log that has begun; None: there was no message."""
        begun = [log for log in self.folder.glob(f"*{RECORD}") if log.stat().st_size]
        return max(begun, key=by_beginning, default=None)

    @property
    def updated(self) -> datetime:
        """When something was written last."""
        newest = max((file.stat().st_mtime for file in self.folder.iterdir()), default=0.0)
        return datetime.fromtimestamp(newest, UTC)

    def facts(self) -> Facts:
        """The facts.

        Raises:
            OSError, ValueError: they cannot be read.
        """
        known = json_text.load(self.folder / FACTS)
        if not isinstance(known, dict) or not isinstance(known.get("cwd"), str):
            raise ValueError(f"{FACTS} of a session has no working directory")  # noqa: TRY004
        title, model = known.get("title"), known.get("model")
        return Facts(known["cwd"], title if isinstance(title, str) else "", model if isinstance(model, str) else None)

    def keep(self, facts: Facts) -> None:
        """Write the facts.

        Raises:
            OSError: they cannot be written.
        """
        known = {"cwd": facts.cwd, "title": one_line(plain(facts.title), MAX_TITLE), "model": facts.model}
        write_whole(self.folder / FACTS, json.dumps(known, indent=1).encode("ascii"))


class Storage:
    """The folder of all sessions. `folder`: made when the first session begins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new(self, facts: Facts) -> Stored:
        """The folder of a new session.

        Raises:
            OSError: it cannot be made.
        """
        stored = self._stored(secrets.token_hex(16))
        stored.folder.mkdir(parents=True, mode=0o700)
        stored.keep(facts)
        return stored

    def find(self, id_: str) -> Stored | None:
        """The session of this id; None: there is none. An id comes from a client and may be anything."""
        stored = self._stored(id_) if _ID.match(id_) else None
        return stored if stored and (stored.folder / FACTS).is_file() else None

    def all(self) -> Iterator[Stored]:
        """All sessions, the one that was used last first."""
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        found = [stored for name in names if (stored := self.find(name))]
        yield from sorted(found, key=lambda stored: (stored.updated, stored.id), reverse=True)

    def _stored(self, id_: str) -> Stored:
        return Stored(id_, self._folder / id_)
