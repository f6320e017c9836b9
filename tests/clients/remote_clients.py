"""A `RemoteLM` of each provider, from the arguments of its adapter."""

from __future__ import annotations

from rlm_kernel.clients.anthropic import AnthropicAdapter
from rlm_kernel.clients.openai import OpenAIAdapter
from rlm_kernel.clients.portkey import PortkeyAdapter
from rlm_kernel.clients.remote import RemoteLM


def openai_lm(*args, **options):
    return RemoteLM(OpenAIAdapter(*args, **options))


def anthropic_lm(*args, **options):
    return RemoteLM(AnthropicAdapter(*args, **options))


def portkey_lm(*args, **options):
    return RemoteLM(PortkeyAdapter(*args, **options))
