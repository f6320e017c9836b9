"""The RLM kernel: a notebook in which a person has the model's REPL.

Loaded as an IPython extension by the kernelspec `rlm`. `context` is a variable like any other; its value is what
`%%rlm` asks about when a cell names nothing else.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Load the magics, and add the names of the REPL."""
    from rlm_magics.magics import load, loaded_magics

    magics = loaded_magics(shell) or load(shell)
    magics.context_name = "context"
    shell.push({"context": ""})
    shell.push({"answer": {"content": "", "ready": False}, **_names(shell)}, interactive=False)


def _names(shell: InteractiveShell) -> dict[str, Any]:
    def FINAL(value: object) -> None:  # noqa: N802 (the field's name)
        """Show a value as the answer, and store it in `answer`."""
        from IPython.display import Markdown, display

        from rlm_kernel.trajectory.notebook import markdown

        shell.user_ns["answer"] = {"content": value, "ready": True}
        display(Markdown(markdown.prose(str(value), breaks=True)))

    def FINAL_VAR(name: str) -> None:  # noqa: N802
        """Show the value of a variable as the answer."""
        if name not in shell.user_ns:
            raise NameError(f"there is no variable {name!r}; SHOW_VARS() lists the variables")
        FINAL(shell.user_ns[name])

    def SHOW_VARS() -> dict[str, str]:  # noqa: N802
        """The variables of the notebook and their types."""
        hidden = shell.user_ns_hidden
        # A name of the REPL that was assigned again is a variable of the user.
        own = ((n, v) for n, v in shell.user_ns.items() if not n.startswith("_") and hidden.get(n, hidden) is not v)
        return {name: type(value).__name__ for name, value in own if not isinstance(value, ModuleType)}

    return {f.__name__: f for f in (FINAL, FINAL_VAR, SHOW_VARS)}
