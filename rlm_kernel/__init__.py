"""The engine of rlm-kernel: a Recursive Language Model whose REPL is a real Jupyter kernel.

Import the documented names from `rlm`; this package holds the parts they are made of. It imports nothing by
itself, so that starting a kernel (`python -m rlm_kernel.provisioners.launcher`) costs no more than it must.
"""

__version__ = "0.1.0"
