"""Arguments without keys, where the reference has it."""

from rlm_kernel.reference.sensitive import filter_sensitive_keys

__all__ = ["filter_sensitive_keys"]
