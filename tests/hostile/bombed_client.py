"""Ask a provider through an SDK, in a process of its own; says what was raised, and how the memory has grown.

python bombed_client.py BACKEND URL MODEL streamed|whole
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

from rlm_kernel.clients import registry
from rlm_kernel.errors import LMError

PROMPT = [{"role": "user", "content": "hello"}]


def peak() -> int:
    """Bytes of memory, at most, since the process began."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024


async def main(backend: str, url: str, model: str, how: str) -> None:
    kwargs = {"model_name": model, "api_key": "hostile-key-1234", "timeout": 30}
    address = {"api_base": url} if backend == "litellm" else {"base_url": url}
    lm = registry.build(backend, {**kwargs, **address}, {})
    await lm._connection.client()
    before, said = peak(), {}
    try:
        await asyncio.wait_for(lm.complete(PROMPT, max_tokens=1_000, on_text=len if how == "streamed" else None), 250)
    except LMError as error:
        said = {"words": str(error)[:1_000], "requests": error.requests}
    print(json.dumps({**said, "grown": peak() - before}))
    await lm.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
