"""A conversation with `rlm acp` under the Python, and so the version of the SDK, that runs this file.

    PYTHON old_client.py FOLDER COMMAND...

Prints what the client saw as one JSON object.
"""

import asyncio
import importlib.metadata
import json
import os
import sys
from pathlib import Path

from acp_client import editor


async def main(folder: Path, command: list[str]) -> None:
    async with editor(command=command, env=dict(os.environ), cwd=folder) as client:
        session = await client.new(folder)
        await client.agent.set_session_mode(session_id=session, mode_id="ask")
        first = await client.ask(session, "How many?")
        turn = asyncio.create_task(client.ask(session, "Wait."))
        await client.wait_for(session, lambda: len(client.calls(session)) == 2)
        await client.agent.cancel(session_id=session)
        second = await turn
        await client.agent.close_session(session_id=session)
        client.updates.clear()
        await client.agent.load_session(cwd=str(folder), session_id=session, mcp_servers=[])
        listed = await client.agent.list_sessions(cwd=str(folder))
        seen = {
            "version": importlib.metadata.version("agent-client-protocol"),
            "reasons": [first.stop_reason, second.stop_reason],
            "told": client.said(session),
            "asked": len(client.asked),
            "sessions": [one.title for one in listed.sessions],
        }
        print(json.dumps(seen))


asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
