"""A caller of the gateway, without a protocol."""

from __future__ import annotations

from rlm_kernel.gateway.gateway import Caller

OWNER = Caller()


class Client:
    """Calls tools of a gateway in one session."""

    def __init__(self, gateway, caller=OWNER):
        self.gateway, self.caller, self.session = gateway, caller, None

    async def begin(self, *roots, **config):
        created = await self.gateway.call("rlm.session.create", {"config": config}, self.caller)
        self.session = created["session_id"]
        if roots:
            await self.ok("rlm.roots.set", roots=list(roots))
        return self

    async def __call__(self, tool, **given):
        return await self.gateway.call(tool, {"session_id": self.session, **given}, self.caller)

    async def ok(self, tool, **given):
        result = await self(tool, **given)
        assert "error" not in result, result
        return result

    async def refused(self, tool, **given):
        result = await self(tool, **given)
        assert result["success"] is False, result
        return result["error"]

    async def handle(self, path):
        return (await self.ok("rlm.fs.handle.create", file_path=path))["file_handle"]
