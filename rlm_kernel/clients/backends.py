"""The table of backends: the client of each name, and its arguments. A new backend is one entry.

Most providers speak OpenAI's chat completions, so most entries name `OpenAILM` and a URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rlm_kernel.clients.base import LM

_OPENAI = "rlm_kernel.clients.openai:OpenAILM"
_ANTHROPIC = "rlm_kernel.clients.anthropic:AnthropicLM"
_PORTKEY = "rlm_kernel.clients.portkey:PortkeyLM"
_LITELLM = "rlm_kernel.clients.litellm:LiteLLM"
_LLAMACPP = "rlm_kernel.clients.llamacpp.client:LlamaCppLM"

_CALL = ("max_tokens", "sampling_args", "timeout")
_REMOTE = ("api_key", "base_url", "context_window", "max_retries", "prices", *_CALL)


@dataclass(frozen=True, slots=True)
class Backend:
    """One row of the table.

    Attributes:
        name: what `RLM(backend=...)` is given.
        factory: ``"module:Class"``, called with the arguments.
        required: arguments that must be in `backend_kwargs`.
        optional: arguments that may be.
        others: whether arguments that are not named here are handed on to the SDK, which looks for keys itself.
        key_variable: the environment variable of the key; None when the backend wants none, or finds it itself.
        key: what is sent when there is no key; None when there must be one.
        base_url: the endpoint, unless given; None is what the client asks by itself.
        base_url_variable: the environment variable of the endpoint, or None.
        path: appended to an endpoint that names a host only.
        settings: further arguments of the factory, which are no business of the user's.
        package: what must be installed, beside a plain install.
        extra: the extra that installs it.
        example: a model, for messages.
        example_url: an endpoint, for messages.
        profile: the kind of prompt its models need.
        remote: whether its client is a `RemoteLM`, which is told what it is called.
    """

    name: str
    factory: str = _OPENAI
    required: tuple[str, ...] = ("model_name",)
    optional: tuple[str, ...] = _REMOTE
    others: bool = False
    key_variable: str | None = None
    key: str | None = None
    base_url: str | None = None
    base_url_variable: str | None = None
    path: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    package: str | None = None
    extra: str | None = None
    example: str = "gpt-5-mini"
    example_url: str = "http://localhost:8000/v1"
    profile: Literal["large", "small"] = "large"
    remote: bool = True

    @property
    def arguments(self) -> tuple[str, ...]:
        """All arguments it takes."""
        return (*self.required, *(name for name in self.optional if name not in self.required))

    def create(self, arguments: Mapping[str, Any]) -> LM:
        """Call the factory."""
        module, _, name = self.factory.partition(":")
        identity = {"backend": self.name, "key_variable": self.key_variable} if self.remote else {}
        lm: LM = getattr(import_module(module), name)(**{**identity, **self.settings, **arguments})
        return lm


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        backend.name: backend
        for backend in (
            Backend("openai", key_variable="OPENAI_API_KEY", base_url_variable="OPENAI_BASE_URL"),
            Backend(
                "anthropic",
                _ANTHROPIC,
                key_variable="ANTHROPIC_API_KEY",
                base_url_variable="ANTHROPIC_BASE_URL",
                example="claude-sonnet-4-5",
            ),
            Backend(
                "openrouter",
                key_variable="OPENROUTER_API_KEY",
                base_url="https://openrouter.ai/api/v1",
                base_url_variable="OPENROUTER_BASE_URL",
                settings={"headers": {"X-Title": "rlm-kernel"}},
                example="openai/gpt-5-mini",
            ),
            Backend(
                "vllm",
                required=("model_name", "base_url"),
                key_variable="VLLM_API_KEY",
                key="EMPTY",
                settings={"own_server": True},
                example="meta-llama/Llama-3-70b",
            ),
            Backend(
                "portkey",
                _PORTKEY,
                optional=(*_REMOTE, "provider", "virtual_key", "config", "custom_host", "Authorization"),
                key_variable="PORTKEY_API_KEY",
                base_url_variable="PORTKEY_BASE_URL",
                example="@openai/gpt-5-mini",
                package="portkey_ai",
                extra="portkey",
            ),
            Backend("litellm", _LITELLM, others=True, package="litellm", extra="litellm"),
            Backend(
                "azure_openai",
                key_variable="AZURE_OPENAI_API_KEY",
                required=("model_name", "base_url"),
                base_url_variable="AZURE_OPENAI_ENDPOINT",
                path="/openai/v1",
                example="your-deployment",
                example_url="https://your-resource.openai.azure.com",
            ),
            Backend(
                "gemini",
                key_variable="GEMINI_API_KEY",
                base_url="https://generativelanguage.googleapis.com/v1beta/openai",
                example="gemini-2.5-flash",
            ),
            Backend(
                "ollama",
                key="ollama",
                base_url="http://localhost:11434",
                base_url_variable="OLLAMA_HOST",
                path="/v1",
                settings={"own_server": True},
                example="qwen2.5-coder",
                profile="small",
            ),
            Backend(
                "llamacpp",
                _LLAMACPP,
                required=(),
                optional=(
                    "api_key",
                    "base_url",
                    "max_retries",
                    "model_name",
                    "model_path",
                    "n_ctx",
                    "n_parallel",
                    *_CALL,
                ),
                key_variable="LLAMACPP_API_KEY",
                key="EMPTY",
                profile="small",
                remote=False,
            ),
        )
    }
)
