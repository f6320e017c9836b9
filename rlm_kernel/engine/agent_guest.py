"""The names of an agent's REPL. This file is run in the kernel, as the code of a tool; it needs the guest only.

The host sends each message of the user through the tool `_next_message`, whose answers are on record. So a replay and
a rebuilt kernel get the same messages, context and tools.
"""

import json
import sys
from typing import Any

MAX_LINE = 500
MAX_RECENT = 10


def _instead(name: str, instead: str) -> Any:
    """A function of other agents that this REPL does not have."""

    def missing(*_: object, **__: object) -> None:
        raise NotImplementedError(f"{name} does not exist here. Write instead: {instead}")

    missing.__name__ = missing.__qualname__ = name
    missing.__doc__ = f"Does not exist here. Write instead: {instead}"
    return missing


class AgentNames:
    """What the REPL of an agent knows besides the names of every REPL."""

    def __init__(self, shell: Any) -> None:
        self.names = shell.user_ns
        self.guest = shell.kernel.rlm_guest
        self.agent_id = ""
        self.history: list = []  # type: ignore[type-arg]  # old kernels cannot subscript it
        self.tools: dict = {}  # type: ignore[type-arg]

    def take_message(self) -> None:
        """Take the next message of the user, with what is new in `context`, `history` and the tools."""
        news = self.names["_next_message"]()
        self.agent_id = news["agent_id"]
        if news["reset"]:
            self.history.clear()
            self.names["context"].clear()
        self.history += news["history"]
        self.names["context"].update(news["context"])
        self.names["history"][:] = self.history
        self.names["answer"] = {"content": "", "ready": False}
        for card in news["tools"]:
            stand_in = sys.modules["rlm_guest"].stand_in(self.guest, card)
            self.tools[card["name"]] = self.names[card["name"]] = stand_in
            self.guest.shell.user_ns_hidden[card["name"]] = stand_in

    def call_tool(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a tool by its name."""
        tool = self.tools.get(name, self.names.get(name))
        if not callable(tool):
            raise NameError(f"there is no tool {name!r}. Known: {', '.join(self.tools) or 'none'}.")  # noqa: TRY004
        return tool(*args, **kwargs)

    def get_agent_context(self) -> Any:
        """The agent's id, the newest messages, the context and the tools with their documentation."""
        return {
            "agent_id": self.agent_id,
            "conversation_history": self.names["history"][-MAX_RECENT:],
            "context_data": self.names.get("context"),
            "tools": {name: tool.__doc__ for name, tool in self.tools.items()},
        }

    def search_context(self, query: str, key: Any = None, limit: int = 10) -> Any:
        """The lines of `context` with most of the words of the query: a list of key, line (from 1) and text.

        key: search only in `context[key]`. limit: of the list.
        """
        context = self.names.get("context")
        parts = context if isinstance(context, dict) else {"context": context}
        words = query.lower().split()
        found: list = []  # type: ignore[type-arg]
        for name, value in parts.items():
            if key is not None and name != key:
                continue
            text = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False, default=str)
            for number, line in enumerate(text.splitlines(), 1):
                hits = sum(word in line.lower() or word in str(name).lower() for word in words)
                if hits:
                    found.append((-hits, len(found), {"key": name, "line": number, "text": line[:MAX_LINE]}))
        return [match for *_, match in sorted(found)[:limit]]

    def add_to_context(self, key: str, value: Any) -> None:
        """Add a value to `context`, for this message and all later ones. It must be plain data."""
        if not isinstance(key, str):
            raise TypeError("the key must be a str")
        value = json.loads(json.dumps(value))
        self.names["_keep_in_context"](key, value)
        self.names["context"][key] = value

    def install(self) -> None:
        """Define the names."""
        mine = {
            name: getattr(self, name)
            for name in ("take_message", "call_tool", "get_agent_context", "search_context", "add_to_context")
        }
        mine |= {name: _instead(name, instead) for name, instead in INSTEAD.items()}
        self.names.update(mine)
        hidden = ("AgentNames", "INSTEAD", "MAX_LINE", "MAX_RECENT", "Any", "json", "sys")
        self.guest.shell.user_ns_hidden.update({**mine, **{name: self.names[name] for name in hidden}})


INSTEAD = {
    "analyze_text": 'llm_query("What is the sentiment of this text? " + text), or for a summary, keywords, topics',
    "extract_entities": 'llm_query("List the people, places and organisations in this text: " + text, schema=...)',
    "summarize_context": 'llm_query("Summarise: " + str(context[key])) for each key',
    "stream_output": "print(text); the words of FINAL(...) reach the user while you write them",
    "get_buffered_output": "assign what you need to a variable; variables stay",
    "reason_step_by_step": "your reasoning as text before the code, and one cell for each step",
    "evaluate_options": 'llm_query("Compare these options: " + str(options)), or compare them in code',
    "make_decision": 'llm_query("Choose one of these options and say why: " + str(options))',
}
"""Names of other agents' REPLs, with what does the same here."""

AgentNames(get_ipython()).install()  # type: ignore[name-defined] # noqa: F821 (a name of the REPL)
