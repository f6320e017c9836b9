"""Import paths of the reference: `rlm.core.types` and `rlm.core.rlm`."""
