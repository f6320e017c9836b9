"""The words of an answer while the model writes them, for `chat`."""

from __future__ import annotations

from rlm_kernel.engine.agent_tools import TAKE_MESSAGE
from rlm_kernel.engine.spoken_answer import SpokenAnswer
from rlm_kernel.engine.turns import EARLY
from rlm_kernel.errors import RLMError
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event


class Words:
    """Reads the events of one message.

    Args:
        must_look: whether the model may still be asked to look at the context first, which rejects its answer.

    Attributes:
        sent: the words so far.
    """

    def __init__(self, *, must_look: bool) -> None:
        self.sent = ""
        self._must_look = must_look
        self._reply = SpokenAnswer()

    def take(self, event: Event) -> str:
        """The next words that an event brings.

        Raises:
            RLMError: the run has another answer than the words that were sent.
        """
        match event:
            case events.IterationStarted():
                self._reply = SpokenAnswer()
            case events.ModelText() if not self._must_look:
                words = self._reply.feed(event.text)
                self.sent += words
                return words
            case events.CellFinished(result=result) if result.code != TAKE_MESSAGE:
                self._must_look = False
            case events.Notice(message=message) if message == EARLY:
                self._must_look = False
            case events.RunFinished(completion=completion):
                return self._rest(completion.response)
        return ""

    def _rest(self, answer: str) -> str:
        if not answer.startswith(self.sent):
            error = RLMError(
                "The model took back what it had begun to answer, so the words that were sent are not its answer."
            )
            error.partial_answer = self.sent
            raise error
        return answer[len(self.sent) :]
