"""Drives a gateway with a client of the SDK 1.x, which begins with `initialize`. Run by its own Python.

Arguments: `stdio COMMAND…`, or `http URL KEY`. Prints what it saw, as JSON.
"""

import asyncio
import json
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client


def transport(kind, *given):
    if kind == "stdio":
        return stdio_client(StdioServerParameters(command=given[0], args=list(given[1:])))
    return streamablehttp_client(given[0], {"Authorization": f"Bearer {given[1]}"})


async def result(session, tool, **given):
    return json.loads((await session.call_tool(tool, given)).content[0].text)


async def main(*given):
    async with transport(*given) as streams, ClientSession(*streams[:2]) as session:
        began = await session.initialize()
        await session.send_ping()
        tools = await session.list_tools()
        made = await result(session, "rlm_session_create")
        about = {"session_id": made["session_id"]}
        await result(session, "rlm.roots.set", roots=["src"], **about)
        items = (await result(session, "rlm.fs.list", root="src", **about))["items"]
        handle = next(item["file_handle"] for item in items if item.get("path") == "src/session.py")
        span = await result(session, "rlm.span.read", file_handle=handle, start_line=2, end_line=2, **about)
        state = await session.read_resource(f"rlm://sessions/{made['session_id']}")
        prompt = await session.get_prompt("search", {"subject": "x"})
        seen = {
            "protocol": began.protocolVersion,
            "tools": len(tools.tools),
            "content": span["content"],
            "calls": json.loads(state.contents[0].text)["used"]["tool_calls"],
            "prompt": prompt.messages[0].role,
        }
    print(json.dumps(seen))


asyncio.run(main(*sys.argv[1:]))
