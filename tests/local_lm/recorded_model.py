"""The local model from a file: what it replied to each request once, so that the tests of prompts need no model.

    with RecordedModel(Path("replies.jsonl")) as model:
        RLM("llamacpp", {"base_url": model.base_url})

A request that the file does not have (the prompt changed, or another Python has another standard library) is put to the
real model. `pytest tests/local_lm --record` asks it for every reply and writes the files again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json

from loopback import Fails, LoopbackProvider, Says

from rlm_kernel.clients.llamacpp.client import LlamaCppLM
from rlm_kernel.errors import LMError

NOT_ASKED = {"stream", "stream_options", "user"}
"""Fields of a request that say nothing about its reply."""


class RecordedModel(LoopbackProvider):
    """Speaks the wire format of llama.cpp's server on loopback.

    Args:
        file: a line of JSON for each reply: `request` (a hash), `text`, `usage` (tokens in and out), `finish_reason`.

    Attributes:
        missed: how many requests were not in the file.
    """

    def __init__(self, file):
        lines = file.read_text("utf-8").splitlines() if file.is_file() else []
        self._known = {entry["request"]: entry for entry in map(json.loads, lines)}
        self.missed = 0
        super().__init__(self._reply)
        self.models = [{"id": "qwen2.5-coder-1.5b-instruct", "meta": {"n_ctx": 8192}}]

    def _reply(self, request):
        key = key_of(request.body)
        if (entry := self._known.get(key)) is None:
            self.missed += 1
            try:
                entry = {"request": key, **asyncio.run(ask(request.body))}
            except LMError as error:
                return Fails(error.status or 400, str(error))
            self._known[key] = entry
        return Says(entry["text"], tuple(entry["usage"]), finish_reason=entry["finish_reason"])

    def save(self, file):
        """Write the replies, sorted by their requests."""
        lines = [json.dumps(entry, ensure_ascii=False) for _, entry in sorted(self._known.items())]
        file.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def key_of(body):
    asked = {name: value for name, value in body.items() if name not in NOT_ASKED}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


async def ask(body):
    """What the real model replies."""
    lm = LlamaCppLM()
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    try:
        reply = await lm.complete(body["messages"], max_tokens=limit, schema=schema)
    finally:
        await lm.close()
    usage = [reply.usage.input_tokens, reply.usage.output_tokens]
    return {"text": reply.text, "usage": usage, "finish_reason": reply.finish_reason}
