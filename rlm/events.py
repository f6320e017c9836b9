"""The events that `RLM.stream()` yields, one class each.

Every event has `time`, seconds since the run started; see each class for its own fields.
"""

from rlm_kernel.trajectory.events import (
    CellFinished,
    CellOutput,
    CellStarted,
    ChildEvent,
    Compacted,
    Event,
    IterationFinished,
    IterationStarted,
    KernelReady,
    ModelReplied,
    ModelText,
    Notice,
    RunFailed,
    RunFinished,
    RunStarted,
    SubcallAnswered,
    SubcallFinished,
    SubcallRejected,
    SubcallStarted,
    ToolCalled,
)

__all__ = [
    "CellFinished",
    "CellOutput",
    "CellStarted",
    "ChildEvent",
    "Compacted",
    "Event",
    "IterationFinished",
    "IterationStarted",
    "KernelReady",
    "ModelReplied",
    "ModelText",
    "Notice",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "SubcallAnswered",
    "SubcallFinished",
    "SubcallRejected",
    "SubcallStarted",
    "ToolCalled",
]
