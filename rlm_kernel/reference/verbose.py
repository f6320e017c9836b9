"""`VerbosePrinter`: print the records of a run, for loggers of users. `RLM(verbose=True)` needs none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlm_kernel.text import clip, format_cost, format_duration, format_tokens, plain

if TYPE_CHECKING:
    from rich.console import Console

    from rlm_kernel.trajectory.log.iterations import CodeBlock, RLMIteration, RLMMetadata

_LIMITS = {
    "timeout": "Timeout Exceeded",
    "tokens": "Token Limit Exceeded",
    "errors": "Error Threshold Exceeded",
    "cancelled": "Execution Cancelled",
}
_CHARACTERS = 2_000
_PREVIEW = 200


class VerbosePrinter:
    """Prints on stderr with Rich. Control sequences in the text of a model are removed.

    Args:
        enabled: False: nothing is printed.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """The console, made when it is needed."""
        if self._console is None:
            from rlm_kernel.untrusted.plain_console import PlainConsole

            self._console = PlainConsole(stderr=True)
        return self._console

    def print_metadata(self, metadata: RLMMetadata) -> None:
        """The arguments of an `RLM`."""
        self._print("RLM", "\n".join(f"{name}: {value}" for name, value in metadata.to_dict().items()), "cyan")

    def print_iteration_start(self, iteration: int) -> None:
        """The heading of a turn."""
        if self.enabled:
            self.console.rule(f"Iteration {iteration}")

    def print_completion(self, response: Any, iteration_time: float | None = None) -> None:
        """The reply of the model."""
        took = f" ({format_duration(iteration_time)})" if iteration_time else ""
        self._print(f"LLM response{took}", response, "blue")

    def print_code_execution(self, code_block: CodeBlock) -> None:
        """A code block with its output."""
        result = code_block.result
        shown = "\n".join(filter(None, (code_block.code, "→", result.stdout, result.stderr)))
        self._print("Code", shown, "red" if result.stderr else "green")

    def print_subcall(
        self,
        model: str,
        prompt_preview: str,
        response_preview: str,
        execution_time: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """A sub-call, with its first words."""
        took = f" ({format_duration(execution_time)})" if execution_time else ""
        turns = f"Iterations: {len(metadata.get('iterations', ()))}\n" if metadata else ""
        prompt, response = clip(str(prompt_preview), _PREVIEW), clip(str(response_preview), _PREVIEW)
        self._print(f"Sub-call {model}{took}", f"{turns}Prompt: {prompt}\nResponse: {response}", "magenta")

    def print_iteration(self, iteration: RLMIteration, iteration_num: int) -> None:
        """A turn: the reply, its code blocks and their sub-calls."""
        self.print_iteration_start(iteration_num)
        self.print_completion(iteration.response, iteration.iteration_time)
        for block in iteration.code_blocks:
            self.print_code_execution(block)
            for call in block.result.rlm_calls:
                self.print_subcall(call.root_model, str(call.prompt), call.response, call.execution_time, call.metadata)

    def print_budget_exceeded(self, spent: float, budget: float) -> None:
        """The budget is spent."""
        self._print("Budget Exceeded", f"Spent: ${spent:.6f}\nBudget: ${budget:.6f}", "red")

    def print_limit_exceeded(self, limit_type: str, details: str) -> None:
        """A limit is reached: ``"timeout"``, ``"tokens"``, ``"errors"`` or ``"cancelled"``."""
        self._print(_LIMITS.get(limit_type, f"{limit_type.title()} Limit Exceeded"), details, "red")

    def print_compaction_status(self, current_tokens: int, threshold_tokens: int, max_tokens: int) -> None:
        """How full the conversation is."""
        self._print(
            "Context", f"{current_tokens:,} of {threshold_tokens:,} tokens (window: {max_tokens:,})", "bright_black"
        )

    def print_compaction(self) -> None:
        """The conversation is summarised."""
        self._print("Compaction", "The conversation is summarised.", "bright_black")

    def print_final_answer(self, answer: Any) -> None:
        """The answer."""
        self._print("Final Answer", answer, "yellow")

    def print_summary(
        self, total_iterations: int, total_time: float, usage_summary: dict[str, Any] | None = None
    ) -> None:
        """The sums at the end."""
        models = (usage_summary or {}).get("model_usage_summaries", {}).values()
        sums = [sum(model.get(f"total_{side}_tokens", 0) for model in models) for side in ("input", "output")]
        cost = (usage_summary or {}).get("total_cost")
        facts = [f"Iterations: {total_iterations}", f"Total time: {format_duration(total_time)}", format_tokens(*sums)]
        self._print("Summary", "\n".join(facts + ([format_cost(cost)] if cost is not None else [])), "cyan")

    def _print(self, title: str, content: Any, colour: str) -> None:
        if not self.enabled:
            return
        from rich.panel import Panel
        from rich.text import Text

        shown = Text(plain(clip(str(content), _CHARACTERS)))
        self.console.print(Panel(shown, title=Text(plain(title)), title_align="left", border_style=colour))
