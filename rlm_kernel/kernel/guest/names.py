"""The other names of the REPL: answers, `budget`, and what does not work here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from .tools import stand_in

if TYPE_CHECKING:
    from .repl import Guest
    from .wire import Asker

RESERVED = frozenset(
    "context history answer FINAL FINAL_VAR SHOW_VARS exit quit get_ipython In Out "
    "llm_query llm_query_batched allm_query allm_query_batched "
    "rlm_query rlm_query_batched arlm_query arlm_query_batched".split()
)
"""Names that the REPL defines; a custom tool cannot have one of them."""


class Budget(NamedTuple):
    """What is left of the limits of a run; None: no limit.

    seconds: until the time-out. tokens: of input and output. cost: US dollars. calls: prompts of sub-calls. errors:
    cells in a row that may raise. iterations: turns after this one. depth: levels of `rlm_query` with a REPL; 0: it is
    answered like `llm_query`. All runs of a tree share seconds, tokens, cost and calls.
    """

    seconds: float | None
    tokens: int | None
    cost: float | None
    calls: int | None
    errors: int | None
    iterations: int
    depth: int

    def __repr__(self) -> str:
        left = (f"{name}={'no limit' if value is None else value}" for name, value in self._asdict().items())
        return f"Budget({', '.join(left)})"


def answer_names(guest: Guest) -> dict[str, Any]:
    """The functions with which a cell gives the answer, and the one that lists variables."""

    def FINAL(value: object) -> None:
        """Give the answer of the whole task."""
        guest.give("FINAL(...)", value)

    def FINAL_VAR(name: object) -> None:
        """Give the value of the variable with this name as the answer of the whole task."""
        if not isinstance(name, str) or not name.isidentifier():
            guest.give("FINAL_VAR(...)", name)  # the value itself was given instead of the name
        elif not guest.take_variable(name):
            print(f"FINAL_VAR: there is no variable {name!r}. SHOW_VARS() lists what there is.", file=sys.stderr)

    def SHOW_VARS() -> dict[str, str] | str:
        """The variables made so far and their types."""
        return guest.variables() or "No variables yet. What you assign in a cell stays."

    named = {function.__name__: function for function in (FINAL, FINAL_VAR, SHOW_VARS)}
    for function in named.values():
        function.__module__ = "rlm_guest"
    return named


def budget_name(guest: Asker) -> dict[str, Any]:
    """`budget`, which is an ordinary name: cells and tools may take it."""
    ask_host = stand_in(guest, {"name": "budget", "doc": "", "parameters": None})

    def budget() -> Budget:
        """What is left of the limits: seconds, tokens, cost, calls, errors, iterations, depth. None: no limit."""
        __tracebackhide__ = True
        return Budget(**ask_host())

    budget.__qualname__, budget.__module__ = "budget", "rlm_guest"
    return {"budget": budget}


def ignore_exit(*_: object) -> None:
    """exit() and quit() would end the kernel and all variables with it."""
    print("The session stays open. To finish, give the answer with FINAL(...).", file=sys.stderr)


def refuse_input(*_: object, **__: object) -> None:
    """Replace `input`, which would wait forever."""
    raise EOFError("input() is not available: nobody is at the keyboard. Everything you need is in `context`.")
