"""The reference's messages between cells and host, which do not exist here."""

from rlm_kernel.reference.missing import CALLS, names_the_way

__getattr__ = names_the_way(
    __name__,
    dict.fromkeys(
        [
            "LMRequest",
            "LMResponse",
            "send_lm_request",
            "send_lm_request_batched",
            "socket_recv",
            "socket_request",
            "socket_send",
        ],
        CALLS,
    ),
)
