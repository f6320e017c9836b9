"""Whole runs with a provider that sends odd replies: one such reply ends neither the run nor the answer of a cell."""

from __future__ import annotations

import pytest
from loopback import Fails, Says
from loopback_responses import reasoning

from rlm import RLM
from rlm.logger import RLMLogger
from rlm_kernel.clients.openai import OpenAIAdapter
from rlm_kernel.clients.remote import RemoteLM
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.errors import LMError, NoAnswerError
from rlm_kernel.types import Reply

LOOK = "```repl\nprint(len(context))\n```"
TOOL = {"id": "call_1", "type": "function", "function": {"name": "python", "arguments": "{}"}}


@pytest.fixture
async def remote(provider):
    lm = RemoteLM(OpenAIAdapter(**provider.backend_kwargs, timeout=20, max_retries=0))
    yield lm
    await lm.close()


async def test_replies_without_text_are_told_to_the_model(run, provider, remote):
    provider.script = [
        Says(None, fields={"reasoning_content": "Hm."}),
        Says(None, fields={"tool_calls": [TOOL]}, finish_reason="tool_calls"),
        Says(None, finish_reason="content_filter"),
        " \n ",
        LOOK,
        "FINAL(12)",
    ]
    assert (await run(remote)).response == "12"
    told = [request.prompt for request in provider.requests[1:5]]
    assert [text.partition(".")[0] for text in told] == [
        "That reply held neither code nor an answer",
        "There are no tools to call",
        "That reply was withheld and did not arrive",
        "That reply held neither code nor an answer",
    ]
    sent = [message["content"] for message in provider.requests[-1].messages if message["role"] == "assistant"]
    assert sent[-5:-1] == ["(empty)"] * 4


async def test_an_error_late_in_a_run_carries_the_answer_so_far(run, provider, remote):
    draft = "```repl\nanswer['content'] = 'about 12'\n```"
    provider.script = [draft, Fails(400, "It failed.")]
    with pytest.raises(LMError) as caught:
        await run(remote)
    assert caught.value.partial_answer == "about 12"
    provider.script = [f"It seems to be 12.\n{LOOK}", Fails(400, "It failed.")]
    with pytest.raises(LMError) as caught:
        await run(remote)
    assert caught.value.partial_answer == "It seems to be 12."


async def test_an_error_of_a_client_of_ones_own_carries_it_too(run, events):
    root = ScriptedLM([f"It seems to be 12.\n{LOOK}", RuntimeError("no luck")])
    with pytest.raises(RuntimeError) as caught:
        await run(root)
    assert caught.value.partial_answer == events[-1].error.partial_answer == "It seems to be 12."


CELL = """```repl
import asyncio
try:
    llm_query("?")
except Exception as error:
    print(type(error).__name__, repr(error.partial_answer), "allow_partial=True" in str(error))
failed = llm_query_batched(["?", "?"])[0]
print(type(failed).__name__, repr(failed.partial_answer))
print(repr(llm_query("?", allow_partial=True)))
print(llm_query_batched(["?", "?"], allow_partial=True))
print(repr(await allm_query("?", allow_partial=True)), await allm_query_batched(["?"], allow_partial=True))
```"""


async def test_a_cut_answer_is_taken_only_if_the_cell_allows_it(run, events):
    root = ScriptedLM([CELL, "FINAL(done)"])
    sub = ScriptedLM(lambda _: Reply("It is 4", "sub", finish_reason="length"), model="sub")
    await run(root, others=[sub])
    cut = "It is 4\\n[cut at the length limit]"
    told = root.calls[1].prompt
    assert "QueryError 'It is 4' True\nFailedQuery 'It is 4'\n" in told
    assert f"'{cut}'\n['{cut}', '{cut}']\n'{cut}' ['{cut}']" in told


async def test_a_model_that_only_the_responses_api_has_leads_a_run_and_answers_its_questions(run, provider, remote):
    steps = iter([Says("```repl\nprint(llm_query('?'))\n```", blocks=(reasoning("abc"),)), "sub", "FINAL(12)"])

    def script(request):
        return next(steps) if request.is_responses else Fails(404, "This model is only supported in v1/responses.")

    provider.script = script
    assert (await run(remote)).response == "12"
    assert "sub" in provider.requests[-1].prompt
    assert any(item.get("encrypted_content") == "abc" for item in provider.requests[-1].body["input"])


async def test_a_cut_answer_is_on_record_with_its_text_and_a_resumed_run_takes_it(tmp_path):
    cell = "```repl\nprint(llm_query('?', allow_partial=True))\n```"
    sub = ScriptedLM([Reply("It is 4", "sub", finish_reason="length")], model="sub")
    failing = LMError("It failed.", backend="openai", model="m", status=400)
    rlm = RLM(ScriptedLM([cell, failing]), other_backends=[sub], logger=RLMLogger(tmp_path, file_name="run"))
    with rlm, pytest.raises(LMError):
        await rlm.acompletion("some context", "a question")
    log = next(path for path in tmp_path.glob("*.jsonl") if ".events" not in path.name)
    again = ScriptedLM(["FINAL(42)"])
    resumed = await RLM.aresume(log, backend=again, other_backends=[ScriptedLM([], model="sub")], trust=True)
    assert resumed.response == "42"
    assert "It is 4\n[cut at the length limit]" in again.calls[0].prompt


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply("<think>\nhm", "m", finish_reason="length"), "only thinking"),
        (Reply("", "m", finish_reason="length"), "only thinking"),
        (Reply("", "m", finish_reason="content_filter"), "was withheld"),
        (Reply("", "m", finish_reason="refusal"), "was withheld"),
        (Reply("FINAL(It is 4", "m", finish_reason="content_filter"), "by the provider's filter inside the answer"),
        (Reply("```repl\nprint(", "m", finish_reason="content_filter"), "by the provider's filter inside a code block"),
        (Reply("FINAL(It is 4", "m", finish_reason="length"), "the limit is 16384 tokens"),
    ],
)
async def test_a_reply_without_text_or_a_cut_one_is_told_with_its_cause(run, reply, said):
    lm = ScriptedLM([reply, LOOK, "FINAL(12)"])
    assert (await run(lm)).response == "12"
    assert said in lm.calls[1].messages[-1]["content"]
    assert ("tokens" in lm.calls[1].messages[-1]["content"]) == (reply.finish_reason == "length")


@pytest.mark.parametrize(
    ("finish_reason", "said"), [("length", "only thinking.*max_tokens"), ("content_filter", "filter.*withheld every")]
)
async def test_a_run_without_any_text_ends_with_the_cause(run, finish_reason, said):
    with pytest.raises(NoAnswerError, match=said):
        await run(ScriptedLM([Reply("", "m", finish_reason=finish_reason)] * 9), max_iterations=3)
    with pytest.raises(NoAnswerError, match="raise max_iterations"):
        await run(ScriptedLM([LOOK, *[Reply("", "m", finish_reason=finish_reason)] * 9]), max_iterations=3)
