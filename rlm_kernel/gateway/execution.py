"""`exec.run`: code of the caller."""

from __future__ import annotations

from typing import Any

from rlm_kernel.gateway import arguments, limits
from rlm_kernel.gateway.calls import CANARY_WARNING, Call
from rlm_kernel.gateway.kernels import MIN_MEMORY_MB
from rlm_kernel.gateway.reading import cut, sound
from rlm_kernel.gateway.refusals import FailedError, LimitExceededError
from rlm_kernel.gateway.sessions import Span
from rlm_kernel.gateway.tree import digest
from rlm_kernel.types import CellResult


async def run_code(call: Call, given: arguments.ExecRun) -> dict[str, Any]:
    """Run code of the caller."""
    size = len(given.code.encode("utf-8", "replace"))
    if size > limits.MAX_CODE_BYTES:
        raise LimitExceededError(f"Code too large: {size} > {limits.MAX_CODE_BYTES} bytes")
    if given.timeout_ms > limits.MAX_EXEC_TIMEOUT_MS:
        raise LimitExceededError(f"Timeout too large: {given.timeout_ms}ms > {limits.MAX_EXEC_TIMEOUT_MS}ms")
    memory = min(max(given.memory_limit_mb, MIN_MEMORY_MB), limits.MAX_EXEC_MEMORY_MB)
    code = given.code.encode("utf-8", "replace").decode()
    cell = await call.services.kernels.run(call.session, code, given.timeout_ms / 1000, memory)
    if cell.status == "timeout":
        raise FailedError(f"Execution timeout: exceeded {given.timeout_ms}ms (R3 compliance)")
    if cell.status == "died":
        raise FailedError(f"The kernel died: it may use {memory} MB. Its variables are lost.")
    return _result(call, code, cell)


def _result(call: Call, code: str, cell: CellResult) -> dict[str, Any]:
    stdout = cut(sound(cell.stdout + (cell.value or "")), limits.MAX_EXEC_OUTPUT_BYTES)
    failure = "" if cell.error is None else f"{cell.error.name}: {cell.error.message}\n"
    stderr = cut(sound(cell.stderr + failure), limits.MAX_EXEC_OUTPUT_BYTES - len(stdout.encode()))
    shown = (stdout + stderr).encode()
    code_hash = digest(code.encode())
    call.spans.append(Span("execution", code_hash, (), 0, 0, digest(shown), len(shown)))
    return {
        "success": cell.status == "ok",
        "stdout": stdout,
        "stderr": stderr,
        "execution_time": round(cell.seconds, 3),
        "artifacts": [],
        "provenance": {"code_hash": code_hash, "inputs": [], "outputs": [digest(shown)]},
        "warning": CANARY_WARNING if call.has_canary(stdout + stderr) else None,
    }
