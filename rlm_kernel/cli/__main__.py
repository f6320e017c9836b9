"""`python -m rlm_kernel.cli` is the same as `rlm`."""

import sys

from rlm_kernel.cli import main

sys.exit(main())
