"""The reference's `DaytonaREPL`, which does not exist here."""

from rlm_kernel.reference.missing import KERNELS, names_the_way

__getattr__ = names_the_way(__name__, {"DaytonaREPL": KERNELS})
