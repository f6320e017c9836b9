"""A recorded run told once more as the stream of events that it was, for readers such as the console."""

from __future__ import annotations

from collections.abc import Iterator

from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.events import Event
from rlm_kernel.trajectory.tree import Trajectory


def retold(run: Trajectory) -> Iterator[Event]:
    """The events of a run, as far as it got; pieces of text and output are not on record."""
    if run.started is None:
        return
    yield run.started
    replies = {reply.iteration: reply for reply in run.replies if isinstance(reply, events.ModelReplied)}
    for turn in run.turns:
        reply = replies.get(turn.iteration)
        time = reply.time if reply else run.seconds
        yield events.IterationStarted(time=time, iteration=turn.iteration, told=turn.told)
        if reply is not None:
            yield reply
        for cell in turn.cells:
            yield from cell.retold()
        for message in turn.notices:
            yield events.Notice(time=time, message=message)
        if turn.finished is not None:
            yield turn.finished
    if run.completion is not None:
        yield events.RunFinished(time=run.seconds, completion=run.completion)
    elif run.failure is not None:
        yield events.RunFailed(time=run.seconds, error=run.failure, given_up=run.given_up)
