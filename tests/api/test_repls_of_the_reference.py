"""REPLs without a run: `LocalREPL` and its siblings, and the `LMHandler` that answers their cells."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading

import psutil
import pytest
from places import living_kernels

from rlm.clients import BaseLM
from rlm.core.comms_utils import LMRequest, send_lm_request, send_lm_request_batched
from rlm.core.lm_handler import LMHandler
from rlm.core.types import ModelUsageSummary, RLMChatCompletion, UsageSummary
from rlm.environments import IPythonREPL, LocalREPL, SupportsCustomTools, SupportsPersistence, get_environment
from rlm.environments.docker_repl import DockerREPL
from rlm.environments.e2b_repl import E2BREPL
from rlm.environments.prime_repl import PrimeREPL
from rlm_kernel.errors import ConfigError


class Echo(BaseLM):
    def completion(self, prompt):
        if prompt == "fail":
            raise RuntimeError("no such model")
        if prompt == "cancel":
            raise asyncio.CancelledError
        if prompt == "leave":
            raise SystemExit("enough")
        return f"{self.model_name}: {prompt}"

    async def acompletion(self, prompt):
        return self.completion(prompt)

    def get_usage_summary(self):
        return UsageSummary({self.model_name: self.get_last_usage()})

    def get_last_usage(self):
        return ModelUsageSummary(1, 10, 20)


def child(prompt, model=None):
    return RLMChatCompletion(model or "child", prompt, f"solved {prompt}", UsageSummary({}), 0.1)


@pytest.fixture(scope="module")
def repl():
    with LMHandler(Echo("echo")) as handler, LocalREPL(handler.address, subcall_fn=child) as repl:
        yield repl


def test_a_cell_gives_its_output_its_variables_and_its_calls(repl):
    result = repl.execute_code("x = 3\nprint(llm_query('hi'), x)")
    assert (result.stdout, result.stderr, result.final_answer) == ("echo: hi 3\n", "", None)
    assert result.locals["x"] == repl.locals["x"] == 3
    assert [(call.root_model, call.response) for call in result.rlm_calls] == [("echo", "echo: hi")]
    assert repl.execute_code("").rlm_calls == []


@pytest.mark.parametrize("count", [0, -1, True, "8", None])
def test_a_handler_asks_one_prompt_at_a_time_at_least(count):
    with pytest.raises(ConfigError, match="batch_max_concurrent must be a whole number, 1 or more, not"):
        LMHandler(Echo("echo"), batch_max_concurrent=count)


def test_usage_that_cannot_be_read_is_an_error_of_the_call():
    class NoUsage(Echo):
        def get_last_usage(self):
            raise KeyError("no usage")

    with LMHandler(NoUsage("bad")) as handler:
        response = send_lm_request(handler.address, LMRequest("hi"))
    assert (response.success, response.chat_completion) == (False, None)
    assert "get_last_usage: KeyError: 'no usage'" in response.error


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"depth": "1"}, "depth"), ({"model": 5}, "model"), ({"prompts": "ab"}, "prompts")],
)
def test_a_question_of_wrong_types_is_refused_with_its_field(fields, field):
    with pytest.raises(ValueError, match=f"{field} must be"):
        LMRequest.from_dict(fields)


def test_a_client_that_raises_a_stop_is_an_error_in_the_cell(repl):
    result = repl.execute_code("print(llm_query('cancel'))\nprint(llm_query('hi'))\nllm_query('leave')")
    assert "CancelledError" in result.stdout
    assert "echo: hi" in result.stdout
    assert "SystemExit: enough" in result.stderr


def test_calls_are_in_the_order_of_their_prompts(repl):
    result = repl.execute_code("llm_query('a')\nrlm_query_batched(['b', 'c'], model='m')\nllm_query('d')")
    assert [call.response for call in result.rlm_calls] == ["echo: a", "solved b", "solved c", "echo: d"]
    assert [call.root_model for call in result.rlm_calls] == ["echo", "m", "m", "echo"]


def test_a_failed_call_is_a_text(repl):
    result = repl.execute_code("print(llm_query('fail'), llm_query_batched(['fail', 'b']))")
    assert result.stdout.count("Error: LM query failed - llm() call failed - no such model") == 2
    assert [call.response for call in result.rlm_calls] == ["echo: b"]


def test_a_cell_that_raises_is_a_result(repl):
    result = repl.execute_code("print(1)\n1 / 0")
    assert result.stdout == "1\n"
    assert "ZeroDivisionError: division by zero" in result.stderr


def test_an_answer_is_given_once(repl):
    assert repl.execute_code("answer['content'] = 5; answer['ready'] = True").final_answer == "5"
    assert repl.execute_code("print(answer)").stdout == "{'content': '', 'ready': False}\n"


def test_variables_come_as_json_or_as_text(repl):
    repl.execute_code("plain = {'a': [1, None]}; none = None; other = object; big = 'x' * 30_000_000")
    values = repl.locals
    assert (values["plain"], values["none"], values["other"]) == ({"a": [1, None]}, None, "type")
    assert values["big"] == "<str>"
    repl.execute_code("del big")


def test_no_code_of_a_cell_runs_for_the_variables_and_values_that_json_cannot_hold_are_text(repl):
    code = """
import sys
class Endless:
    def __repr__(self):
        while True: pass
endless, inside, many = Endless(), [Endless()], {1, 2}
sys.set_int_max_str_digits(0)
large = 10 ** 6000
deep = []
for _ in range(3_000): deep = [deep]
"""
    values = repl.execute_code(code).locals
    assert (values["endless"], values["inside"], values["many"], values["large"]) == (
        "Endless",
        "[Endless]",
        "{1, 2}",
        "int",
    )
    assert values["deep"].startswith("[[[")
    repl.execute_code("del endless, inside, large, deep, many")


def test_the_next_result_says_that_the_kernel_died_between_two_cells():
    with LocalREPL(context_payload="text") as repl:
        pid = int(repl.execute_code("import os; print(os.getpid())").stdout)
        kernel = psutil.Process(pid)
        kernel.kill()
        psutil.wait_procs([kernel])
        while repl._session.alive:
            pass
        result = repl.execute_code("print(context)")
        assert "the kernel died between two cells" in result.stderr
        assert result.stdout == "text\n"
        assert repl.execute_code("").stderr == ""


def test_a_forked_process_cannot_use_the_kernel_and_does_not_end_it(repl):
    code = """
import os
from rlm.environments import LocalREPL
with LocalREPL() as repl:
    if (child := os.fork()) == 0:
        try:
            repl.execute_code("1")
        except Exception as error:
            print(type(error).__name__, error, flush=True)
        repl.cleanup()
        os._exit(0)
    os.waitpid(child, 0)
    print(repl.execute_code("print('alive')").stdout)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[0].startswith("KernelError The kernel of this REPL belongs to the process")
    assert done.stdout.splitlines()[1] == "alive"


def test_a_client_that_raises_anything_is_a_text_in_the_cell():
    class Cancelled(Echo):
        def completion(self, prompt):
            raise asyncio.CancelledError

    class Uncounted(Echo):
        def get_last_usage(self):
            raise KeyError("no usage")

    for client, words in ((Cancelled("c"), "CancelledError"), (Uncounted("u"), "no usage")):
        with LMHandler(client) as handler:
            assert words in send_lm_request(handler.address, LMRequest("x")).error


def test_a_function_cannot_run_a_cell_while_one_waits_for_it():
    raised = []

    def calls_back(prompt, model=None):
        try:
            repl.execute_code("1")
        except RuntimeError as error:
            raised.append(str(error))
        return child(prompt)

    with LocalREPL(subcall_fn=calls_back) as repl:
        repl.execute_code("rlm_query('x')")
    assert raised == ["Reentrant execute_code: the cell that calls this function is still running."]


def test_cells_of_two_threads_run_one_after_the_other(repl):
    counts = []

    def work():
        counts.extend(len(repl.execute_code("rlm_query('p')").rlm_calls) for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 9


def test_contexts_and_histories_are_numbered_and_the_first_has_the_short_name():
    with LocalREPL(context_payload="first", setup_code="n = len(context)", custom_tools={"C": 7}) as repl:
        assert (repl.add_context({"a": 1}), repl.add_history([{"role": "user", "content": "hi"}])) == (1, 0)
        repl.execute_code("context = 1")
        assert repl.execute_code("print(context, context_1, history, n, C)").stdout == (
            "first {'a': 1} [{'role': 'user', 'content': 'hi'}] 5 7\n"
        )
        assert (repl.get_context_count(), repl.get_history_count()) == (2, 1)
        assert {"context", "context_1", "history_0", "C", "n"} <= repl.locals.keys()
        assert isinstance(repl, SupportsPersistence)
        assert isinstance(repl, SupportsCustomTools)
    assert repl.locals == {}


def test_the_history_of_compaction_is_the_list_that_was_appended_to():
    with LocalREPL(compaction=True) as repl:
        repl.append_compaction_entry({"type": "summary", "content": "done"})
        assert repl.execute_code("print(history[0]['content'])").stdout == "done\n"


def test_budget_needs_a_run(repl):
    assert "budget() needs a run" in repl.execute_code("budget()").stderr


def test_a_setup_finds_the_modules_beside_the_script(tmp_path, monkeypatch):
    (tmp_path / "beside_a_repl.py").write_text("KNOWN = 41")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with LocalREPL(setup_code="from beside_a_repl import KNOWN") as repl:
        assert repl.execute_code("print(KNOWN + 1)").stdout == "42\n"


def test_a_setup_that_raises_is_an_error_and_leaves_no_kernel():
    before = living_kernels()
    with pytest.raises(ValueError, match=r"setup_code failed:[\s\S]*ZeroDivisionError"):
        LocalREPL(setup_code="1 / 0")
    with pytest.raises(ValueError, match="cannot be sent to the kernel"):
        LocalREPL(context_payload={"lock": threading.Lock()})
    assert living_kernels() == before


def test_after_a_cell_that_is_too_slow_the_repl_goes_on():
    with get_environment("ipython", {"cell_timeout": 0.3, "custom_tools": {"C": 7}}) as repl:
        assert isinstance(repl, IPythonREPL)
        assert "TimeoutError: the cell took longer than 0.3 s" in repl.execute_code("while True: pass").stderr
        repl.cell_timeout = None
        assert "KernelError: the kernel died" in repl.execute_code("import os; os._exit(1)").stderr
        assert repl.execute_code("print(C)").stdout == "7\n"


def test_a_kernel_that_died_between_two_cells_is_replaced():
    before = set(living_kernels())
    with LocalREPL(context_payload="kept") as repl:
        (process,) = set(living_kernels()) - before
        process.kill()
        results = [repl.execute_code("print(context)") for _ in range(2)]
    assert results[1].stdout == "kept\n"


def test_a_repl_that_nobody_uses_ends_its_kernel():
    before = set(living_kernels())
    repl = LocalREPL()
    (process,) = set(living_kernels()) - before
    del repl
    gc.collect()
    assert psutil.wait_procs([process], timeout=20)[1] == []


def test_a_repl_has_no_parts_inside(repl):
    assert [name for name in ("temp_dir", "proxy_server", "_shell", "_user_module") if hasattr(repl, name)] == []
    assert (repl.sandbox_id, repl.broker_url) == (None, None)


def test_wrong_arguments_are_value_errors():
    for wrong in ({"kernel_mode": "x"}, {"startup_timeout": 0}, {"subcall_timeout": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            IPythonREPL(**wrong)
    with pytest.raises(ValueError, match="Only image can be given by position"):
        DockerREPL("python:3.11-slim", ("127.0.0.1", 5000))
    with pytest.raises(ValueError, match="REPLs are at local, ipython, docker"):
        get_environment("nowhere", {})


def test_a_handler_takes_questions_between_start_and_stop_only():
    handler = LMHandler(Echo("one"), other_backend_client=Echo("two"))
    handler.register_client("three", Echo("three"))
    with handler:
        address = handler.address
        asked = [LMRequest("p"), LMRequest("p", depth=1), LMRequest("p", model="three", depth=1)]
        answers = [send_lm_request(address, request).chat_completion.response for request in asked]
        batch = send_lm_request_batched(address, ["a", "fail", "b"])
    assert answers == ["one: p", "two: p", "three: p"]
    assert [reply.success for reply in batch] == [True, False, True]
    assert batch[1].error == "llm() call failed - no such model"
    assert handler.get_usage_summary().model_usage_summaries.keys() == {"one", "two", "three"}
    assert "no LMHandler of this process" in send_lm_request(address, LMRequest("p")).error


@pytest.mark.usefixtures("docker_engine")
def test_a_repl_in_a_container_asks_the_handler_of_this_process():
    with LMHandler(Echo("echo")) as handler, DockerREPL(lm_handler_address=handler.address) as repl:
        assert repl.container_id
        assert repl.execute_code("print(llm_query('hi'))").stdout == "echo: hi\n"


def test_a_repl_in_a_sandbox_knows_its_id(prime_emulator):
    with PrimeREPL("mine", timeout_minutes=5) as repl:
        assert prime_emulator.orders[0]["name"].startswith("mine")
        assert repl.sandbox_id == repl.sandbox.id == prime_emulator.sandboxes[0].id
        assert repl.execute_code("print(1 + 1)").stdout == "2\n"


@pytest.mark.full
def test_a_repl_of_e2b_takes_its_timeout_by_position(e2b_emulator):
    with E2BREPL(100) as repl:
        assert e2b_emulator.times[0] == 100
        assert repl.sandbox_id == e2b_emulator.sandboxes[0].id
