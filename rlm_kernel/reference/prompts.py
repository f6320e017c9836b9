"""The prompts under the reference's names. The words are ours; `RLM_SYSTEM_PROMPT` is a template as there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlm_kernel.prompts import LARGE
from rlm_kernel.prompts.profile import advice_of, filled_in
from rlm_kernel.reference.tools import format_tools_for_prompt
from rlm_kernel.trajectory.log.iterations import QueryMetadata

RLM_SYSTEM_PROMPT = LARGE.system.replace("{", "{{").replace("}", "}}") + "{custom_tools_section}"
"""The system prompt for large models, for `str.format(custom_tools_section=...)` or `custom_system_prompt`."""

ORCHESTRATOR_ADDENDUM = advice_of(LARGE.system)
"""How to divide the work between code and sub-calls. It is a part of `RLM_SYSTEM_PROMPT`."""

USER_PROMPT = "Turn {iter_1}/{max_iter}:"


def build_rlm_system_prompt(
    system_prompt: str,
    query_metadata: QueryMetadata,
    custom_tools: Mapping[str, Any] | None = None,
    root_prompt: str | None = None,
    orchestrator: bool = True,
) -> list[dict[str, str]]:
    """The first two messages of a conversation: the system prompt, and what the context is."""
    tools = format_tools_for_prompt(custom_tools)
    system = filled_in(system_prompt, f"\nCustom tools and data available in the REPL:\n{tools}" if tools else "")
    if orchestrator and ORCHESTRATOR_ADDENDUM not in system:
        system = f"{system}\n\n{ORCHESTRATOR_ADDENDUM}"
    known = query_metadata
    about = f"Your context is a {known.context_type} of {known.context_total_length} total characters."
    asked = f"Answer the following: {root_prompt}\n\n{about}" if root_prompt else about
    return [{"role": "system", "content": system}, {"role": "user", "content": asked}]


def build_user_prompt(
    root_prompt: str | None = None,  # noqa: ARG001 (the reference's)
    iteration: int = 0,
    context_count: int = 1,
    history_count: int = 0,
    max_iterations: int = 30,
) -> dict[str, str]:
    """The message that begins a turn. `iteration` counts from 0."""
    parts = ["Look at `context` first; do not give an answer yet."] if iteration == 0 else []
    parts.append(USER_PROMPT.format(iter_1=iteration + 1, max_iter=max_iterations))
    if context_count > 1:
        parts.append(f"There are {context_count} contexts, context_0 to context_{context_count - 1}.")
    if history_count == 1:
        parts.append("One earlier conversation is in `history`.")
    elif history_count:
        parts.append(f"There are {history_count} earlier conversations, history_0 to history_{history_count - 1}.")
    return {"role": "user", "content": "\n\n".join(parts)}
