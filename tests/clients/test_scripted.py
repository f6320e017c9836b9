"""The public test double."""

from __future__ import annotations

from rlm_kernel.clients.scripted import ScriptedLM

QUESTION = [{"role": "user", "content": "Who are you?"}]


async def test_a_text_is_the_only_reply_and_not_a_reply_for_each_letter():
    assert (await ScriptedLM("FINAL(42)").complete(QUESTION)).text == "FINAL(42)"
