"""The wall around the tests: sockets of this process reach loopback and nothing else."""

from __future__ import annotations

import ipaddress
import socket


class OutsideNetworkError(RuntimeError):
    """A test tried to leave this machine. Not an OSError, which clients would retry and wrap."""


def guarded(method):
    def checked(self, *args):
        if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_here(args[-1][0]):
            raise OutsideNetworkError(f"A test tried to reach {args[-1]}: only loopback is allowed.")
        return method(self, *args)

    return checked


def guarded_lookup(getaddrinfo):
    def checked(host, *args, **kwargs):
        if host and not _is_here(host):
            raise OutsideNetworkError(f"A test tried to look up {host!r}: only loopback is allowed.")
        return getaddrinfo(host, *args, **kwargs)

    return checked


def _is_here(host: str | bytes) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in {"", "localhost", socket.gethostname()}
