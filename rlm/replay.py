"""What is done with the log or the notebook of a run: run it once more, and leave out what its answer does not need."""

from rlm_kernel.replay.minimise import Cleaning, clean
from rlm_kernel.replay.replayer import ReplayReport, areplay, replay

__all__ = ["Cleaning", "ReplayReport", "areplay", "clean", "replay"]
