"""The import paths of the reference: names that work here, and messages for the others."""

from __future__ import annotations

import importlib
from typing import get_args

import pytest

import rlm
from rlm import RLM, ConfigError, ScriptedLM
from rlm_kernel.clients.backends import BACKENDS
from rlm_kernel.provisioners.kernelspecs import ALIASES, AVAILABLE

pytestmark = pytest.mark.no_engine

HERE = {
    "rlm.clients": ["BaseLM", "get_client"],
    "rlm.clients.anthropic": ["AnthropicClient"],
    "rlm.clients.azure_openai": ["AzureOpenAIClient"],
    "rlm.clients.base_lm": ["DEFAULT_TIMEOUT", "BaseLM"],
    "rlm.clients.gemini": ["GeminiClient"],
    "rlm.clients.openai": ["OpenAIClient"],
    "rlm.clients.portkey": ["PortkeyClient"],
    "rlm.core.comms_utils": ["LMRequest", "LMResponse", "send_lm_request", "send_lm_request_batched"],
    "rlm.core.lm_handler": ["LMHandler"],
    "rlm.core.rlm": [
        "BudgetExceededError", "LMHandler", "RLM", "RLMIteration", "RLMLogger", "RLM_SYSTEM_PROMPT",
        "SupportsPersistence", "VerbosePrinter", "find_code_blocks", "get_client", "get_environment",
    ],
    "rlm.core.types": [
        "ClientBackend", "CodeBlock", "EnvironmentType", "ModelUsageSummary", "QueryMetadata", "REPLResult",
        "RLMChatCompletion", "RLMIteration", "RLMMetadata", "UsageSummary", "_serialize_value",
    ],
    "rlm.environments": [
        "IPythonREPL", "LocalREPL", "RESERVED_TOOL_NAMES", "SupportsCustomTools", "SupportsPersistence", "ToolInfo",
        "format_tools_for_prompt", "get_environment", "validate_custom_tools",
    ],
    "rlm.environments.base_env": [
        "SupportsCustomTools", "SupportsPersistence", "extract_tool_value", "parse_custom_tools", "parse_tool_entry",
    ],
    "rlm.environments.daytona_repl": ["DaytonaREPL"],
    "rlm.environments.docker_repl": ["DockerREPL"],
    "rlm.environments.e2b_repl": ["E2BREPL"],
    "rlm.environments.ipython_repl": ["IPythonREPL"],
    "rlm.environments.local_repl": ["LocalREPL"],
    "rlm.environments.modal_repl": ["ModalREPL"],
    "rlm.environments.prime_repl": ["PrimeREPL"],
    "rlm.logger": ["RLMLogger", "VerbosePrinter"],
    "rlm.logger.rlm_logger": ["RLMLogger"],
    "rlm.logger.verbose": ["VerbosePrinter"],
    "rlm.utils.exceptions": [
        "BudgetExceededError", "CancellationError", "ErrorThresholdExceededError", "TimeoutExceededError",
        "TokenLimitExceededError",
    ],
    "rlm.utils.parsing": [
        "convert_context_for_repl", "find_code_blocks", "format_execution_result", "format_iteration",
    ],
    "rlm.utils.prompts": [
        "ORCHESTRATOR_ADDENDUM", "RLM_SYSTEM_PROMPT", "USER_PROMPT", "build_rlm_system_prompt", "build_user_prompt",
    ],
    "rlm.utils.rlm_utils": ["filter_sensitive_keys"],
    "rlm.utils.token_utils": ["count_tokens", "get_context_limit"],
}  # fmt: skip

TOOLS = "Custom tools and data available in the REPL:\n- `f`: F"

NOT_HERE = {
    "rlm.core.comms_utils": ["socket_recv", "socket_request", "socket_send"],
    "rlm.environments": ["BaseEnv"],
    "rlm.environments.base_env": ["BaseEnv", "IsolatedEnv", "NonIsolatedEnv"],
    "rlm.utils.parsing": ["find_final_answer"],
    "rlm.clients.openai": ["DEFAULT_OPENAI_API_KEY"],
    "rlm.core.rlm": ["BaseEnv"],
    "rlm.core.lm_handler": ["LMRequestHandler", "ThreadingLMServer", "socket_recv"],
    "rlm.environments.local_repl": ["NonIsolatedEnv"],
    "rlm.environments.modal_repl": ["IsolatedEnv", "PIP_PACKAGES"],
    "rlm.environments.constants": ["APT_PACKAGES", "PIP_PACKAGES"],
    "rlm.logger.verbose": ["COLORS", "STYLE_TEXT"],
    "rlm.utils.prompts": ["RLM_SYSTEM_PROMPT_OLD", "USER_PROMPT_OLD"],
    "rlm.utils.token_utils": ["MODEL_CONTEXT_LIMITS"],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in HERE.items() for name in names])
def test_a_name_of_the_reference_is_where_it_was(module, name):
    namespace = {}
    exec(f"from {module} import {name}", namespace)
    assert namespace[name] is getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NOT_HERE.items() for name in names])
def test_the_import_of_a_missing_name_says_what_to_use_instead(module, name):
    with pytest.raises(ImportError, match=rf"{module}\.{name} does not exist in rlm-kernel: .+\. See docs/migration"):
        exec(f"from {module} import {name}", {})


def test_a_name_that_nobody_had_is_an_ordinary_attribute_error():
    assert not hasattr(importlib.import_module("rlm.environments"), "no_such_name")


def test_the_system_prompt_is_ours_as_a_template():
    from rlm.utils.prompts import RLM_SYSTEM_PROMPT

    lm = ScriptedLM(["```repl\nFINAL(1)\n```"] * 2)
    RLM(lm).completion("x")
    RLM(lm, custom_system_prompt=RLM_SYSTEM_PROMPT).completion("x")
    ours, given = (call.messages[0]["content"] for call in lm.calls)
    assert ours.strip() == given.strip()
    assert RLM_SYSTEM_PROMPT.format(custom_tools_section="TOOLS").endswith("TOOLS")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A dict is {{}}.{custom_tools_section}", "A dict is {}.\n" + TOOLS),
        ("A dict is {{}}.", "A dict is {}.\n\n" + TOOLS),
        ('{"a": 1} and {x}', '{"a": 1} and {x}\n\n' + TOOLS),
        ("{ {{", "{ {{\n\n" + TOOLS),
        ("{}", "{}\n\n" + TOOLS),
    ],
)  # fmt: skip
def test_a_system_prompt_for_str_format_is_formatted_and_another_is_not(prompt, expected):
    lm = ScriptedLM("```repl\nFINAL(1)\n```")
    tools = {"f": {"tool": print, "description": "F"}}
    RLM(lm, custom_system_prompt=prompt, custom_tools=tools).completion("x")
    assert lm.calls[0].messages[0]["content"] == expected


def test_orchestrator_adds_the_advice_to_a_system_prompt_or_leaves_it_out():
    from rlm.utils.prompts import ORCHESTRATOR_ADDENDUM

    def system(**arguments):
        lm = ScriptedLM("```repl\nFINAL(1)\n```")
        RLM(lm, **arguments).completion("x")
        return lm.calls[0].messages[0]["content"]

    assert "sub-calls" in ORCHESTRATOR_ADDENDUM
    assert ORCHESTRATOR_ADDENDUM in system()
    assert ORCHESTRATOR_ADDENDUM in system(orchestrator=True)
    assert ORCHESTRATOR_ADDENDUM not in system(orchestrator=False)
    assert "# The answer" in system(orchestrator=False)
    assert system(custom_system_prompt="Mine.") == "Mine."
    assert system(custom_system_prompt="Mine.", orchestrator=True) == f"Mine.\n\n{ORCHESTRATOR_ADDENDUM}"


def test_a_user_prologue_is_the_end_of_the_first_message():
    lm = ScriptedLM("```repl\nFINAL(1)\n```")
    RLM(lm, user_prologue="Tip: count twice.").completion("x")
    assert lm.calls[0].prompt.endswith("\n\nTip: count twice.")


def test_a_replaced_get_client_has_no_effect(monkeypatch):
    """Tests of the reference replace it. Here no run calls that name, and the migration page says so."""
    called = []
    monkeypatch.setattr("rlm.core.rlm.get_client", lambda *given: called.append(given))
    assert RLM("openai", {"model_name": "m", "api_key": "EMPTY"}).config.models.root.model == "m"
    assert called == []


def test_a_client_of_a_user_answers_a_run():
    from rlm.clients import BaseLM
    from rlm.core.types import ModelUsageSummary, UsageSummary

    class Mine(BaseLM):
        def completion(self, prompt):
            self.asked = prompt
            return "```repl\nFINAL(len(context))\n```"

        async def acompletion(self, prompt):
            return self.completion(prompt)

        def get_usage_summary(self):
            return UsageSummary({self.model_name: self.get_last_usage()})

        def get_last_usage(self):
            return ModelUsageSummary(1, 10, 20, total_cost=0.5)

    mine = Mine("my-model")
    result = RLM(mine).completion("abc")
    assert (result.response, result.root_model) == ("3", "my-model")
    assert result.usage_summary == UsageSummary({"my-model": ModelUsageSummary(1, 10, 20, total_cost=0.5)})
    assert mine.asked[0]["role"] == "system"


def test_code_blocks_are_found_also_with_a_fence_in_a_string():
    from rlm.utils.parsing import find_code_blocks

    assert find_code_blocks("a\n```repl\nx = 1\n```\n```python\ny\n```\n```repl\nprint(x)\n```") == [
        "x = 1",
        "print(x)",
    ]
    assert find_code_blocks("no code") == []


def test_a_turn_becomes_two_messages():
    from rlm.core.types import CodeBlock, REPLResult, RLMIteration
    from rlm.utils.parsing import format_iteration

    blocks = [CodeBlock("print(1)", REPLResult("1\n" * 50, "", {"x": 1, "_y": 2}))] * 2
    messages = format_iteration(RLMIteration("p", "r", blocks), max_character_length=30)
    assert [message["role"] for message in messages] == ["assistant", "user"]
    assert messages[1]["content"].startswith("REPL output (block 1):\n\n1\n")
    assert "chars...]" in messages[1]["content"]
    assert format_iteration(RLMIteration("p", "r", [])) == [{"role": "assistant", "content": "r"}]


def test_the_names_of_backends_and_environments_are_literals_of_all_there_are():
    from rlm.core.types import ClientBackend, EnvironmentType

    assert set(get_args(ClientBackend)) == set(BACKENDS)
    assert set(get_args(EnvironmentType)) == {*AVAILABLE, *ALIASES, "agent"}


def test_windows_come_from_the_price_table():
    from rlm.utils.token_utils import count_tokens, get_context_limit

    assert get_context_limit("@openai/gpt-4o-mini") == get_context_limit("gpt-4o-mini") == 128_000
    assert get_context_limit("claude-sonnet-4-5") >= 200_000
    assert get_context_limit("of nobody") == get_context_limit("") == 128_000
    assert count_tokens([{"role": "user", "content": "x" * 9}]) == 3


def test_a_printer_shows_a_turn_without_control_sequences(capsys):
    from rlm.core.types import CodeBlock, REPLResult, RLMIteration
    from rlm.logger import VerbosePrinter

    turn = RLMIteration("p", "an\x1b[2Jswer", [CodeBlock("print(1)", REPLResult("one", "", {}))])
    VerbosePrinter(enabled=False).print_iteration(turn, 1)
    assert capsys.readouterr().err == ""
    VerbosePrinter().print_iteration(turn, 1)
    shown = capsys.readouterr().err
    assert "answer" in shown
    assert "one" in shown
    assert "\x1b[2J" not in shown


def test_the_printer_and_the_records_need_no_run():
    from rlm.core.types import QueryMetadata, RLMMetadata, _serialize_value
    from rlm.utils.rlm_utils import filter_sensitive_keys

    assert QueryMetadata([{"content": "abc"}, "de"]).context_total_length == 5
    assert QueryMetadata({"a": "xx", "b": [1]}).context_lengths == [2, 3]
    assert RLMMetadata("m", 1, 2, "openai", {"f": print}, "local", {}).to_dict()["backend_kwargs"] == {
        "f": "<builtin_function_or_method 'print'>"
    }
    assert _serialize_value((1, rlm)) == [1, "<module 'rlm'>"]
    assert filter_sensitive_keys({"api_key": "k", "model_name": "m"}) == {"model_name": "m"}


def test_a_format_of_the_field_for_tools_is_refused_when_the_rlm_is_made():
    with pytest.raises(ConfigError, match="takes no format"):
        RLM(ScriptedLM([]), custom_system_prompt="x {custom_tools_section:>99999999999}")


@pytest.mark.parametrize("text", ["```repl\nunclosed", "```repl x\n```", "```repl x\n1\n```", "```python\n1\n```"])
def test_a_block_that_is_open_or_has_more_words_is_no_code_block(text):
    from rlm.utils.parsing import find_code_blocks

    assert find_code_blocks(text) == []
    assert find_code_blocks(f"```repl\n\n  f(1)\n```\n{text}") == ["f(1)"]
