"""What the tests of agents share."""

from __future__ import annotations


def cell(code):
    return f"```repl\n{code}\n```"


async def said(agent, message, **arguments):
    """The whole answer of a chat."""
    return "".join([chunk async for chunk in agent.chat(message, **arguments)])
