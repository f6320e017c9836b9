"""The ZMQ context of this process."""

from __future__ import annotations

import os

import zmq

_context: zmq.Context[zmq.Socket[bytes]] | None = None


def zmq_context() -> zmq.Context[zmq.Socket[bytes]]:
    """The zmq context of all our kernels in this process, made with sockets that never drop a message.

    With the default high-water mark of 1000 a reader that stalls loses IOPub messages in silence.
    """
    global _context  # noqa: PLW0603 (one for the process, made when first needed)
    if _context is None or _context.closed:
        _context = zmq.Context()
        for option, value in ((zmq.RCVHWM, 0), (zmq.SNDHWM, 0), (zmq.LINGER, 0), (zmq.RECONNECT_IVL, 5)):
            _context.setsockopt(option, value)
    return _context


def _forget_context() -> None:
    global _context  # noqa: PLW0603
    _context = None


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_forget_context)
