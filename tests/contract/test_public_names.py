"""What `rlm` promises: these names, and an import that loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rlm

PUBLIC = [
    "AgentContext",
    "AgentRLM",
    "AnswerCutError",
    "AnswerSchemaError",
    "BudgetExceededError",
    "CancellationError",
    "CellRequest",
    "ConfigError",
    "ContextOverflowError",
    "ErrorThresholdExceededError",
    "KernelError",
    "LM",
    "LMError",
    "LimitError",
    "MCPServer",
    "ModelUsageSummary",
    "NoAnswerError",
    "NonAnswerError",
    "PromptProfile",
    "RLM",
    "RLMChatCompletion",
    "RLMEnforcementError",
    "RLMError",
    "RecordingError",
    "Refuse",
    "Replace",
    "Reply",
    "ScriptedLM",
    "TimeoutExceededError",
    "TokenLimitExceededError",
    "ToolCall",
    "ToolRequest",
    "TurnLimitExceededError",
    "Usage",
    "UsageSummary",
    "__version__",
    "annotate",
    "create_enforced_agent",
    "mcp_servers",
    "require_agent_environment",
    "runs",
    "view",
]

HEAVY = [
    "IPython",
    "anthropic",
    "docker",
    "dotenv",
    "http.client",  # with email and ssl: 20 ms
    "httpx",
    "httpx2",
    "huggingface_hub",
    "ipykernel",
    "ipywidgets",
    "jsonschema",
    "jupyter_client",
    "litellm",
    "mcp",
    "modal",
    "nbformat",
    "openai",
    "papermill",
    "psutil",
    "pydantic",
    "requests",
    "rich",
    "traitlets",
    "xllamacpp",
    "zmq",
]


def test_the_public_names_are_these():
    assert sorted(rlm.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_can_be_imported(name):
    namespace = {}
    exec(f"from rlm import {name}", namespace)
    assert namespace[name] is getattr(rlm, name)


def test_every_error_is_found_below_the_root_of_the_tree():
    errors = [getattr(rlm, name) for name in PUBLIC if name.endswith("Error")]
    assert len(errors) == 18
    assert all(issubclass(error, rlm.RLMError) for error in errors)


@pytest.mark.parametrize("name", ["rlm", "rlm_magics", "rlm_kernel.cli"])
def test_importing_us_loads_nothing_heavy(name):
    assert loaded_by(f"import {name}", HEAVY) == []


def test_making_an_rlm_loads_no_sdk_and_no_jupyter():
    make = "from rlm import RLM; RLM(backend='openai', backend_kwargs={'model_name': 'm', 'api_key': 'k'})"
    assert loaded_by(make, [name for name in HEAVY if name != "dotenv"]) == []


def loaded_by(code, names):
    """Which of the modules a fresh interpreter has loaded after the code."""
    listing = f"{code}\nimport sys\nprint(*[name for name in {names} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()
