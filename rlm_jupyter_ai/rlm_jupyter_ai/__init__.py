"""RLM in JupyterLab's chat.

The persona starts `rlm acp` and speaks the Agent Client Protocol with it. It imports nothing of rlm-kernel, so that
needs no place in Jupyter's environment. The command is, in this order: the setting `c.RLMPersona.command` of the
Jupyter server, the environment variable `RLM_ACP_COMMAND`, and `rlm acp` on the PATH.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acp.exceptions import RequestError
from jupyter_ai_acp_client.base_acp_persona import BaseAcpPersona
from jupyter_ai_persona_manager import PersonaDefaults
from traitlets import List, Unicode

if TYPE_CHECKING:
    from jupyterlab_chat.models import Message

COMMAND_VARIABLE = "RLM_ACP_COMMAND"
NO_COMMAND = (
    "There is no `rlm` to start. Install `rlm-kernel[jupyter-ai]` in an environment of its own, put its `rlm` on the "
    "PATH of the Jupyter server, or name it: "
    f"`{COMMAND_VARIABLE}=/path/to/rlm acp --model …` in its environment, or `c.RLMPersona.command = [...]` in its "
    "configuration. Then restart the server."
)
_MENTION = re.compile(r"\A\s*@RLM\b[ \t:,]*", re.IGNORECASE)


class RLMPersona(BaseAcpPersona):
    """Answers in the chat with `rlm acp`."""

    NOTEBOOK_EDITING_GUIDANCE = ""  # of Jupyter AI, about tools that ours does not have

    command = List(Unicode(), help="The command that is started, such as ['/path/to/rlm', 'acp', '--model', '…'].").tag(
        config=True
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, executable=[], **kwargs)
        self._executable = self.command or shlex.split(os.environ.get(COMMAND_VARIABLE, "")) or ["rlm", "acp"]

    @property
    def defaults(self) -> PersonaDefaults:
        """Name and picture."""
        return PersonaDefaults(
            name="RLM",
            description="Answers with Python in a kernel of its own: long files, folders, notebooks.",
            avatar_path=str(Path(__file__).with_name("avatar.svg")),
            system_prompt="unused",
        )

    def get_chat_dir(self) -> str:
        """The working directory of a session: the folder that JupyterLab shows, with each file that is mentioned."""
        return str(self.parent.root_dir)

    async def before_agent_subprocess(self) -> None:
        """Check that there is something to start.

        Raises:
            RequestError: there is not; the message says what to do.
        """
        if shutil.which(self._executable[0]) is None:
            raise RequestError(-32000, NO_COMMAND)

    async def process_message(self, message: Message) -> None:
        """Answer a message, without the mention of us at its beginning: a command begins with a slash."""
        await super().process_message(replace(message, body=_MENTION.sub("", message.body)))

    async def handle_uncaught_exception(self, exc: Exception) -> None:
        """Say what is wrong in the words of `rlm acp`: a missing key, a limit, a model that failed."""
        if isinstance(exc, RequestError):
            self.send_message(str(exc))
        else:
            await super().handle_uncaught_exception(exc)
