"""The table of backends: the client and the arguments of each name. A new backend is one entry.

Most providers have OpenAI's API, so most entries name `OpenAIAdapter` and a URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rlm_kernel.clients.base import BaseLM
    from rlm_kernel.clients.provider import ProviderAdapter

_OPENAI = "rlm_kernel.clients.openai:OpenAIAdapter"
_AZURE = "rlm_kernel.clients.azure:AzureAdapter"
_ANTHROPIC = "rlm_kernel.clients.anthropic:AnthropicAdapter"
_PORTKEY = "rlm_kernel.clients.portkey:PortkeyAdapter"
_LITELLM = "rlm_kernel.clients.litellm:LiteLLMAdapter"
_LLAMACPP = "rlm_kernel.clients.llamacpp.client:LlamaCppLM"

_AZURE_DEFAULTS = {"api_version": "2024-02-01"}
"""Those of the reference."""

_CALL = ("max_tokens", "sampling_args", "timeout")
_LOCAL = ("api_key", "base_url", "max_retries", "model_name", "model_path", "n_ctx", "n_parallel", *_CALL)
_REMOTE = ("api_key", "base_url", "context_window", "max_retries", "prices", *_CALL)
_HTTP = (*_REMOTE, "default_headers", "default_query", "http_client")
_OPENAI_HTTP = (*_HTTP, "organization", "project")
_OF_ONE_MODEL = ("azure_deployment", "context_window", "prices")
"""Arguments that another model of the same backend does not share."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One row of the table.

    Attributes:
        name: the value of `RLM(backend=...)`.
        factory: ``"module:Class"`` of the `ProviderAdapter`, or of the client if not `remote`.
        required: arguments that must be in `backend_kwargs`.
        optional: further arguments that it accepts.
        others: whether unknown arguments are passed to the SDK, which also looks for keys itself.
        key_variable: the environment variable of the key; None if the backend needs none, or finds it itself.
        key: sent if there is no key; None if a key is required.
        base_url: the default endpoint; None is the client's own default.
        base_url_variable: the environment variable of the endpoint, or None.
        path: appended to an endpoint without a path.
        variables: environment variables of further arguments.
        of_endpoint: arguments that are used if they are not given and the endpoint, without a path, was given by this
            name or in this variable.
        settings: further arguments of the factory, which the user cannot set.
        defaults: arguments that are used if they are not given.
        renamed: other names of arguments, as an SDK has them.
        package: the package that must be installed, if it is not a dependency.
        extra: the extra that installs it.
        example: a model, for messages.
        example_url: an endpoint, for messages.
        profile: the kind of prompt that its models need.
        remote: whether its client is a `RemoteLM`.
    """

    name: str
    factory: str = _OPENAI
    required: tuple[str, ...] = ("model_name",)
    optional: tuple[str, ...] = _OPENAI_HTTP
    others: bool = False
    key_variable: str | None = None
    key: str | None = None
    base_url: str | None = None
    base_url_variable: str | None = None
    path: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    of_endpoint: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    package: str | None = None
    extra: str | None = None
    example: str = "gpt-5-mini"
    example_url: str = "http://localhost:8000/v1"
    profile: Literal["large", "small"] = "large"
    remote: bool = True

    @property
    def needed(self) -> tuple[str, ...]:
        """The arguments that must be given."""
        return tuple(name for name in self.required if name not in self.defaults)

    @property
    def arguments(self) -> tuple[str, ...]:
        """All arguments that it accepts."""
        return (*self.required, *(name for name in self.optional if name not in self.required))

    def create(self, arguments: Mapping[str, Any]) -> BaseLM:
        """Build the client."""
        module, _, name = self.factory.partition(":")
        factory = getattr(import_module(module), name)
        if not self.remote:
            lm: BaseLM = factory(**arguments)
            return lm
        from rlm_kernel.clients.remote import RemoteLM

        identity = {"backend": self.name, "key_variable": self.key_variable}
        given = {**identity, **self.settings, **arguments}
        only_of = {name: None for name in _OF_ONE_MODEL if name in given}
        adapter = factory(**given)

        def another(name: str) -> ProviderAdapter:
            adapter.check_other(name)
            other: ProviderAdapter = factory(**{**given, **only_of, "model_name": name})
            return other

        # litellm's names choose the provider, and with it the key that is sent
        return RemoteLM(adapter, None if self.others else another)


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        backend.name: backend
        for backend in (
            Backend("openai", key_variable="OPENAI_API_KEY", base_url_variable="OPENAI_BASE_URL"),
            Backend(
                "anthropic",
                _ANTHROPIC,
                optional=_HTTP,
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
                "vercel",
                key_variable="AI_GATEWAY_API_KEY",
                base_url="https://ai-gateway.vercel.sh/v1",
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
                optional=(*_HTTP, "provider", "virtual_key", "config", "custom_host", "Authorization"),
                key_variable="PORTKEY_API_KEY",
                base_url_variable="PORTKEY_BASE_URL",
                example="@openai/gpt-5-mini",
            ),
            Backend("litellm", _LITELLM, optional=_REMOTE, others=True, package="litellm", extra="litellm"),
            Backend(
                "azure_openai",
                _AZURE,
                key_variable="AZURE_OPENAI_API_KEY",
                required=("model_name", "base_url"),
                optional=(*_OPENAI_HTTP, "api_version", "azure_deployment"),
                renamed={"azure_endpoint": "base_url"},
                base_url_variable="AZURE_OPENAI_ENDPOINT",
                variables={"api_version": "AZURE_OPENAI_API_VERSION", "azure_deployment": "AZURE_OPENAI_DEPLOYMENT"},
                of_endpoint={"azure_endpoint": _AZURE_DEFAULTS, "AZURE_OPENAI_ENDPOINT": _AZURE_DEFAULTS},
                example="your-deployment",
                example_url="https://your-resource.openai.azure.com",
            ),
            Backend(
                "gemini",
                key_variable="GEMINI_API_KEY",
                defaults={"model_name": "gemini-2.5-flash"},
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
                optional=_LOCAL,
                key_variable="LLAMACPP_API_KEY",
                key="EMPTY",
                profile="small",
                remote=False,
            ),
        )
    }
)
