"""No secret gets into what is kept, however a writer cuts, escapes or nests it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from trajectory import runs

from rlm import RLM, RecordingError, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.log.context_store import store
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.log.redaction import HIDDEN, Redactor, named_secrets
from rlm_kernel.types import Answer, CellResult, Reply, ToolCall

LONG = "sk-proj-" + "0123456789_abcdefghij-" * 7
PUNCTUATED = "p&ss_w0rd-<very>*long*$1"


def everything(folder, *more):
    """All that was written, with what Markdown and HTML put in between taken out."""
    text = "".join(file.read_text() for file in folder.rglob("*") if file.is_file()) + json.dumps(more)
    for old, new in (("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("<span>", ""), ("</span>", "")):
        text = text.replace(old, new)
    return re.sub(r"[\\\u2060]|\\u2060", "", text)


@pytest.mark.parametrize("secret", [LONG, PUNCTUATED])
def test_no_part_of_a_secret_is_in_a_log_or_a_notebook(tmp_path, monkeypatch, secret):
    monkeypatch.setenv("SERVICE_API_KEY", secret)
    cell = (
        f"a = llm_query_batched(['Look this up with the key {secret} please: ' + str(n) for n in range(3)])\n"
        f"b = echo('{secret}')\nc = rlm_query('a child with {secret}')\nprint('x' * 19_990 + '{secret}')"
    )
    script = [f"I know {secret}.\n{runs.cell(cell)}", "FINAL_VAR(a)"]
    lm = ScriptedLM(lambda m: script[runs.turn(m)] if "THE QUESTION" in str(m) else f"It is {secret}, FINAL({secret})")
    logger = RLMLogger(tmp_path)
    tools = {"echo": lambda text: text}
    with RLM(lm, max_depth=2, logger=logger, custom_tools=tools) as rlm:
        completion = rlm.completion("c", f"THE QUESTION with {secret}")
    assert secret in completion.response  # the answer is the user's
    said = everything(tmp_path, completion.metadata)
    assert HIDDEN in said
    for part in (secret[:16], secret[-12:]):
        assert part not in said


@pytest.mark.parametrize("secret", [LONG, PUNCTUATED])
def test_no_part_of_a_secret_in_an_input_that_is_the_question_is_kept_or_in_a_name(tmp_path, monkeypatch, secret):
    monkeypatch.setenv("SERVICE_API_KEY", secret)
    for question in (f"Is {secret} mine?", "x" * (2_400 - len(secret) // 2) + secret + "y" * 4_000):
        RLM(ScriptedLM(["FINAL(1)"] * 2), logger=RLMLogger(tmp_path)).completion(question)
    said = everything(tmp_path, [path.name for path in tmp_path.iterdir()])
    assert f"Is {HIDDEN} mine?" in said
    for part in (secret[:16], secret[-12:], secret[:12].lower()):
        assert part not in said


def test_a_large_prompt_of_a_child_is_stored_without_the_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICE_API_KEY", LONG)
    script = [runs.cell("print(rlm_query('x' * 5_000 + context))"), *["FINAL(1)"] * 4]
    logger = RLMLogger(tmp_path)
    RLM(ScriptedLM(script), max_depth=2, logger=logger).completion(f"the key {LONG}", "q")
    (prompt,) = (tmp_path / "prompts").iterdir()
    assert prompt.read_text() == f"{'x' * 5_000}the key {HIDDEN}"
    assert LONG not in everything(tmp_path)
    (call,) = read_log(logger.log_file_path).trajectory.cells[0].calls
    assert call.started.prompts == (prompt.read_text(),)


@pytest.mark.parametrize("before", [12_000 - 35, 12_000 - 15])
def test_a_secret_that_the_limit_of_an_output_cuts_is_hidden(tmp_path, monkeypatch, before):
    key = "sk-proj-SECRETSECRET1234567890abcdef"
    monkeypatch.setenv("SERVICE_API_KEY", key)
    code = f"print('a' * {before} + context + 'b' * 200_000)\nprint('a' * 200_000 + context + 'b' * {before - 4_010})"
    logger = RLMLogger(tmp_path)
    completion = RLM(ScriptedLM([runs.cell(code), "FINAL(1)"]), logger=logger).completion(key, "q")
    said = everything(tmp_path, completion.metadata)
    assert key[:12] not in said
    assert key[-12:] not in said


@pytest.mark.parametrize("profile", ["large", "small"])
def test_a_secret_that_the_preview_of_the_context_cuts_is_hidden(tmp_path, monkeypatch, profile):
    monkeypatch.setenv("SERVICE_API_KEY", LONG)
    logger = RLMLogger(tmp_path)
    context = "\n".join(["a" * 20 + LONG + "b" * 20] * 200)
    completion = RLM(ScriptedLM(["FINAL(1)"] * 4), prompts=profile, logger=logger).completion(context, "q")
    said = everything(tmp_path, completion.metadata)
    assert HIDDEN in said
    assert LONG[:12] not in said
    assert LONG[-12:] not in said


def test_a_secret_between_two_pieces_of_an_output_is_hidden_and_what_is_only_alike_stays():
    redact = Redactor([LONG])
    outputs = tuple(
        {"output_type": "stream", "name": "stdout", "text": text} for text in (f"a{LONG[:20]}", f"{LONG[20:]}b")
    )
    event = events.CellFinished(iteration=1, cell=1, result=CellResult("1", "ok", outputs))
    assert [output["text"] for output in redact.event(event).result.outputs] == [f"a{HIDDEN}", f"{HIDDEN}b"]
    assert redact("my key is sk-proj-…") == "my key is sk-proj-…"
    assert redact(f"{LONG[:30]} and {LONG[:20]}… …{LONG[-15:]}") == f"{LONG[:30]} and {HIDDEN}… …{HIDDEN}"
    assert Redactor(["hunter2hunter2"])("hunter2h…") == f"{HIDDEN}…"


def test_a_tool_that_is_called_like_a_secret_is_not_on_record(tmp_path):
    tools = {"api_key": "short", "service": {"password": "hunter2hunter2", "port": 5}, "words": ["a"]}
    script = [runs.cell("print(service, api_key)"), "FINAL(5)"]
    logger = RLMLogger(tmp_path)
    completion = RLM(ScriptedLM(script), custom_tools=tools, custom_sub_tools=tools, logger=logger).completion("c", "q")
    said = everything(tmp_path, completion.metadata)
    assert "hunter2" not in said
    assert '"content":"short"' not in said
    assert '"port":5' in said
    with pytest.raises(RecordingError, match=r"api_key, service .* give custom_tools again"):
        RLM.resume(logger.log_file_path, backend=ScriptedLM([]))
    again = RLM.resume(logger.log_file_path, backend=ScriptedLM([]), custom_tools=tools, custom_sub_tools=tools)
    assert again.response == "5"


def test_a_tool_whose_value_is_not_on_record_is_asked_for(tmp_path):
    logger = RLMLogger(tmp_path)
    script = [runs.cell("a = point[0]"), "FINAL_VAR(a)"]
    RLM(ScriptedLM(script), custom_tools={"point": (3, 4)}, logger=logger).completion("c", "q")
    with pytest.raises(RecordingError, match="point .* give custom_tools again"):
        RLM.resume(logger.log_file_path, backend=ScriptedLM([]))
    assert RLM.resume(logger.log_file_path, backend=ScriptedLM([]), custom_tools={"point": (3, 4)}).response == "3"


def test_a_secret_in_other_letters_is_found_in_a_pickle(tmp_path):
    stored = store({1: "so lautet es: pässwört-geheim"}, tmp_path, Redactor(["pässwört-geheim"]))
    assert (stored.encoding, stored.redacted) == ("pickle", True)
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_found_in_lists_in_headers_and_in_addresses():
    known = named_secrets(
        {
            "api_keys": ["one-of-two-keys", "two-of-two-keys"],
            "default_headers": {"Authorization": "Bearer abcdefghijkl"},
            "base_url": "https://user:a-pass-word@host/v1",
        }
    )
    assert known >= {"one-of-two-keys", "two-of-two-keys", "abcdefghijkl", "a-pass-word"}


def test_records_and_plain_data_are_redacted_and_what_holds_no_secret_stays_itself():
    redact = Redactor(["a-secret-word"])
    event = events.ModelReplied(time=1.0, iteration=1, reply=Reply("say a-secret-word", "m"), seconds=0.5)
    assert redact.data(event).reply == Reply(f"say {HIDDEN}", "m")
    innocent = events.ModelReplied(time=1.0, iteration=1, reply=Reply("nothing", "m"), seconds=0.5)
    assert redact.data(innocent) is innocent
    assert redact.data({"a-secret-word": ["a-secret-word", (1, None)]}) == {HIDDEN: [HIDDEN, (1, None)]}
    assert redact.data({"a-secret-word": 1, HIDDEN: 2}) == {HIDDEN: 2}


def test_what_is_nested_without_end_is_hidden_there_and_the_rest_is_kept():
    deep = ["a-secret-word"]
    for _ in range(5_000):
        deep = [deep]
    call = ToolCall("1", "look_up", ("a-secret-word", deep), {})
    event = events.ToolCalled(time=1.0, cell=1, call=call, outcome=Answer("found"), seconds=0.5)
    redacted = Redactor(["a-secret-word"]).event(event)
    assert redacted.outcome.text == "found"
    assert redacted.call.args[0] == HIDDEN
    inner = redacted.call.args[1]
    while isinstance(inner, list):
        (inner,) = inner
    assert inner == HIDDEN


def test_files_are_as_private_as_the_umask_says(tmp_path):
    before = os.umask(0o077)
    try:
        logger = RLMLogger(tmp_path)
        RLM(ScriptedLM(["FINAL(1)", "FINAL(1)"]), logger=logger).completion("c" * 50_000, "q")
    finally:
        os.umask(before)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".jsonl", ".ipynb", ".txt", ".py"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert Path(logger.notebook_path).is_file()
