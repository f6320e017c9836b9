"""One run over a recording provider: ours, or the reference's with the interpreter in which `rlms` is installed.

    PYTHON wire_side.py OPTIONS    # JSON: arguments of RLM, context, question

Started by `wire.py`. The answer is printed as JSON. Both have the same interface, so this file is the same for both.
"""

from __future__ import annotations

import json
import sys

from rlm import RLM

if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    completion = RLM(**options["arguments"]).completion(options["context"], options["question"])
    print(json.dumps({"answer": completion.response}))
