"""The configuration of an RLM, the same for all its completions."""

from __future__ import annotations

from dataclasses import dataclass

from rlm_kernel.clients.base import BaseLM, as_base_lm
from rlm_kernel.engine.budget import NO_LIMITS, Limits
from rlm_kernel.engine.gates import NO_GATES, Gates
from rlm_kernel.engine.shared_limits import Admission
from rlm_kernel.engine.tools import Tool
from rlm_kernel.prompts.profile import PromptProfile
from rlm_kernel.provisioners.kernelspecs import Environment
from rlm_kernel.types import Prompt

MAX_MODEL_NAME = 200
"""Characters of the name of a model in a cell; a longer text is none."""


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a run: the root, and those for sub-calls by name.

    Attributes:
        root: leads the run.
        others: the `other_backends`, in order; the first one answers sub-calls that name no model.
    """

    root: BaseLM
    others: tuple[BaseLM, ...] = ()

    @property
    def default(self) -> BaseLM:
        """Answers a sub-call that names no model."""
        return self.others[0] if self.others else self.root

    def named(self, name: str | None) -> BaseLM | None:
        """The model of this name, the default for None, or None when there is no such model."""
        if name is None:
            return self.default
        return next((lm for lm in self.all if lm.model == name), None)

    def for_child(self, name: str | None, *, has_repl: bool) -> BaseLM | None:
        """The model of an `rlm_query`: of this name, of the root's provider with this name, or None.

        Args:
            name: None: the root of the child is the root here. A child without a REPL is a plain sub-call.
            has_repl: whether the child has one.

        Raises:
            ConfigError: the provider cannot take the name.
        """
        if name is None:
            return self.root if has_repl else self.default
        if has_repl and name == self.root.model:  # not the one with the sampling of sub-calls
            return self.root
        if (known := self.named(name)) is not None:
            return known
        is_name = name.strip() and name.isprintable() and len(name) <= MAX_MODEL_NAME
        other = self.root.for_model(name) if is_name else None
        return None if other is None else as_base_lm(other)

    @property
    def all(self) -> tuple[BaseLM, ...]:
        """All models that can be asked."""
        return (*self.others, self.root)

    @property
    def names(self) -> tuple[str, ...]:
        """The allowed values of `model=`."""
        return tuple(dict.fromkeys(lm.model for lm in (self.root, *self.others)))


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """A message of a conversation, for the run that answers it.

    Attributes:
        note: the end of the opening that the model reads: the conversation so far, and what is in the kernel.
        first_cell: takes the message over into the kernel, before the model's first cell.
        first_context: the `context` of the conversation's kernel when it was first started.
        has_new_context: whether the message came with something that the model has to look at.
    """

    note: str
    first_cell: str
    first_context: Prompt
    has_new_context: bool = False


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The parts of an RLM, checked and built.

    Attributes:
        models: the root model and those of sub-calls.
        environment: where cells run.
        profile: the prompts.
        system_prompt: a user's own system prompt, or None.
        orchestrator: whether the system prompt says how to use sub-calls; None: as it is written.
        prologue: a user's text at the end of the opening, or None.
        max_iterations: turns of the root model before it is asked for a final answer.
        depth: of this RLM; at `max_depth` it is a plain completion.
        max_depth: the depth at which there are no REPLs.
        max_concurrent_queries: plain sub-calls in flight, over the whole tree.
        max_concurrent_subcalls: children of one RLM that run at a time.
        max_kernels: kernels of the tree that are alive at a time, those of a pool among them; None: by the memory that
            is free when a completion starts.
        limits: what a completion may spend.
        tools: the custom tools of this RLM.
        sub_tools: those of its children.
        persistent: one kernel over all completions.
        conversation: the completions are the messages of one conversation, which share one context and one record.
        compaction: the share of the window at which the conversation is summarised; None: never.
        gates: decide about cells and calls.
        shared: the limits that it shares with other runs, or None.
        seed: of `random` and of hashes in the kernel; a rebuilt kernel uses it again.
    """

    models: Models
    environment: Environment
    profile: PromptProfile
    system_prompt: str | None = None
    orchestrator: bool | None = None
    prologue: str | None = None
    max_iterations: int = 30
    depth: int = 0
    max_depth: int = 1
    max_concurrent_queries: int = 16
    max_concurrent_subcalls: int = 4
    max_kernels: int | None = None
    limits: Limits = NO_LIMITS
    tools: tuple[Tool, ...] = ()
    sub_tools: tuple[Tool, ...] = ()
    persistent: bool = False
    conversation: bool = False
    compaction: float | None = None
    gates: Gates = NO_GATES
    shared: Admission | None = None
    seed: int = 0

    @property
    def levels(self) -> int:
        """On how many levels of the tree, this one included, runs have kernels."""
        return max(0, self.max_depth - self.depth)
