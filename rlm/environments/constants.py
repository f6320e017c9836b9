"""The packages of the reference's sandboxes, which are options here."""

from rlm_kernel.reference.missing import PACKAGES, names_the_way

__getattr__ = names_the_way(__name__, dict.fromkeys(["APT_PACKAGES", "PIP_PACKAGES"], PACKAGES))
