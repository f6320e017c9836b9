"""A grpclib service of which only a part is there: whatever else a client calls is answered with UNIMPLEMENTED."""

from __future__ import annotations

from typing import Any

from grpclib import GRPCError, Status


def answering_the_rest_with_unimplemented(base: type) -> type:
    """The abstract base of a service with a body for each of its methods."""

    def refusing(name: str) -> Any:
        async def method(self: Any, stream: Any) -> None:
            raise GRPCError(Status.UNIMPLEMENTED, f"the emulator has no {name}")

        return method

    return type(f"Partial{base.__name__}", (base,), {name: refusing(name) for name in base.__abstractmethods__})
