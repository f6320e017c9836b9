"""Why a call is refused. The caller reads the message, so it names handles and limits, and never a path."""

from __future__ import annotations


class RefusedError(ValueError):
    """A call is refused.

    Attributes:
        code: for programs, such as `LIMIT_EXCEEDED`.
    """

    code = "INVALID_ARGUMENT"


class MissingArgumentError(RefusedError):
    """A required argument is missing."""

    code = "MISSING_ARGUMENT"


class LimitExceededError(RefusedError):
    """A limit would be passed."""

    code = "LIMIT_EXCEEDED"


class NotAllowedError(RefusedError):
    """The path or the operation is not allowed."""

    code = "NOT_ALLOWED"


class NotFoundError(RefusedError):
    """There is no such session, handle, file or folder."""

    code = "NOT_FOUND"


class NotReadableError(RefusedError):
    """A file that is not text, or is too large."""

    code = "NOT_READABLE"


class UnavailableError(RefusedError):
    """The gateway was not set up for this tool."""

    code = "UNAVAILABLE"


class FailedError(RefusedError):
    """The operation began and failed."""

    code = "EXECUTION_ERROR"
