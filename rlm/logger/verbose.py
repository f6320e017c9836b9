"""`VerbosePrinter`, where the reference has it."""

from rlm_kernel.reference.missing import STYLES, names_the_way
from rlm_kernel.reference.verbose import VerbosePrinter
from rlm_kernel.trajectory.log.iterations import CodeBlock, RLMIteration, RLMMetadata

__all__ = ["CodeBlock", "RLMIteration", "RLMMetadata", "VerbosePrinter"]

_NAMES = ["COLORS", *(f"STYLE_{name}" for name in "ACCENT ERROR MUTED PRIMARY SECONDARY SUCCESS TEXT WARNING".split())]
__getattr__ = names_the_way(__name__, dict.fromkeys(_NAMES, STYLES))
