"""What a message of the Anthropic API says, whole or as the events of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from rlm_kernel.clients.draft import Draft, count
from rlm_kernel.clients.prices import Tokens

FINISH_REASONS: Mapping[str, str] = MappingProxyType(
    {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length"}
)
"""Anthropic's stop reasons in the words of `Reply`; all others, such as refusal, are kept."""


@dataclass(slots=True)
class MessageDraft(Draft):
    """A message, or the events of one. Blocks that are no text, such as thinking, are passed over."""

    complaint: str = "the reply is no message"

    def add(self, response: Any) -> str:
        """Take in a message or an event; its text comes back."""
        match getattr(response, "type", None):
            case "message":
                return self._take(response)
            case "message_start":
                return self._take(response.message)
            case "content_block_start":
                return self._write(response.content_block)
            case "content_block_delta":
                return self._write(response.delta)
            case "message_delta":
                self._end(response.delta)
                self._count(getattr(response, "usage", None))
        return ""

    def _take(self, message: Any) -> str:
        self.begun = True
        self.model = getattr(message, "model", None) or self.model
        self._end(message)
        self._count(getattr(message, "usage", None))
        blocks = getattr(message, "content", None)
        return "".join(map(self._write, blocks)) if isinstance(blocks, list) else ""

    def _write(self, block: Any) -> str:
        text = getattr(block, "text", None)
        if getattr(block, "type", None) not in {"text", "text_delta"} or not isinstance(text, str):
            return ""
        self.pieces.append(text)
        return text

    def _end(self, record: Any) -> None:
        reason = getattr(record, "stop_reason", None)
        if isinstance(reason, str):
            self.finish_reason = FINISH_REASONS.get(reason, reason)

    def _count(self, usage: Any) -> None:
        """The last number counts: in a stream the output is told as it grows, and the input often only at the start."""
        plain, output = count(usage, "input_tokens"), count(usage, "output_tokens")
        if plain is None and output is None:
            return
        cached, written = count(usage, "cache_read_input_tokens") or 0, count(usage, "cache_creation_input_tokens") or 0
        read, said = (plain or 0) + cached + written, output or 0
        self.tokens = Tokens(read, said, cached, written) if read else replace(self.tokens or Tokens(), output=said)
