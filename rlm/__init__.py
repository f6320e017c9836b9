"""Recursive Language Models whose REPL is a real Jupyter kernel.

from rlm import RLM
print(RLM(backend="openai", backend_kwargs={"model_name": "gpt-5-mini"}).completion("...").response)
"""

from rlm_kernel import __version__
from rlm_kernel.agent.agent import AgentRLM, create_enforced_agent
from rlm_kernel.agent.context import AgentContext
from rlm_kernel.agent.enforcement import require_agent_environment
from rlm_kernel.api import RLM
from rlm_kernel.clients.base import LM
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.engine.gates import CellRequest, Refuse, Replace, ToolRequest
from rlm_kernel.errors import (
    AnswerCutError,
    AnswerSchemaError,
    BudgetExceededError,
    CancellationError,
    ConfigError,
    ContextOverflowError,
    ErrorThresholdExceededError,
    KernelError,
    LimitError,
    LMError,
    NoAnswerError,
    NonAnswerError,
    RecordingError,
    RLMEnforcementError,
    RLMError,
    TimeoutExceededError,
    TokenLimitExceededError,
    TurnLimitExceededError,
)
from rlm_kernel.mcp.approval import ToolCall
from rlm_kernel.mcp.config import MCPServer, mcp_servers
from rlm_kernel.prompts.profile import PromptProfile
from rlm_kernel.trajectory.runs.notes import annotate
from rlm_kernel.trajectory.runs.table import runs
from rlm_kernel.types import ModelUsageSummary, Reply, RLMChatCompletion, Usage, UsageSummary
from rlm_kernel.viewer import view

__all__ = [
    "LM",
    "RLM",
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
    "LMError",
    "LimitError",
    "MCPServer",
    "ModelUsageSummary",
    "NoAnswerError",
    "NonAnswerError",
    "PromptProfile",
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
