"""The `portkey` backend: the AI gateway, through the `AsyncPortkey` of portkey-ai (the extra `portkey`).

`AsyncPortkey` turns its arguments into headers and calls the gateway through an openai SDK of its own. That SDK is used
here directly, because `AsyncPortkey` has no timeout for a connection. The SDK retries when the gateway cannot be
reached; when a provider is busy, the gateway retries, if it is asked to, and `max_retries` asks it to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from rlm_kernel.clients.endpoint import http_options
from rlm_kernel.clients.openai import OpenAILM
from rlm_kernel.clients.remote import CONNECT_SECONDS


@dataclass(eq=False, repr=False)
class PortkeyLM(OpenAILM):
    """An `LM` behind Portkey's gateway, hosted or one's own; see `RemoteLM`.

    Args:
        provider: who answers, where the name of the model does not say it (``@provider/model`` does).
        virtual_key: the id of a provider's key that the gateway keeps.
        config: a config of the gateway, or the id of one. It then says how often the gateway asks again.
        custom_host: where the provider is, for one that only the gateway can reach.
        Authorization: the provider's key, for a gateway that keeps none.
    """

    _: KW_ONLY
    provider: str | None = None
    virtual_key: str | None = None
    config: str | Mapping[str, Any] | None = None
    custom_host: str | None = None
    Authorization: str | None = None

    default_url: ClassVar[str] = "https://api.portkey.ai/v1"

    def _open(self) -> Any:
        import httpx
        import portkey_ai

        portkey = portkey_ai.AsyncPortkey(
            api_key=self.api_key,
            base_url=self._url,
            provider=self.provider,
            virtual_key=self.virtual_key,
            config=self.config or self._retries(),
            custom_host=self.custom_host,
            Authorization=self.Authorization,
            http_client=httpx.AsyncClient(**http_options(self._url)),
        )
        client = portkey.openai_client.with_options(
            timeout=httpx.Timeout(self.timeout, connect=min(self.timeout, CONNECT_SECONDS)),
            max_retries=self.max_retries,
            default_headers=self.headers,
        )
        # Its SDK takes them from the environment; they are for OpenAI, and not for the gateway.
        client.organization = client.project = None
        _ = client.chat.completions  # imported at first use: here, in the thread
        return client

    def _retries(self) -> dict[str, Any] | None:
        retry = {"attempts": self.max_retries, "use_retry_after_header": True}
        return {"retry": retry} if self.max_retries else None

    def _in_price_table(self) -> Mapping[str, str] | None:
        slug, slash, _ = self.model_name.removeprefix("@").partition("/")
        provider = slug if slash and self.model_name.startswith("@") else self.provider
        return {"provider_id": provider} if provider and self.custom_host is None else None

    def _names(self, answered_by: str) -> tuple[str, ...]:
        """The name without its ``@provider/``, as the price table knows it."""
        return (answered_by, self.model_name.rpartition("/")[2])

    def _secrets(self) -> tuple[str, ...]:
        key = (self.Authorization or "").removeprefix("Bearer ")
        return (self.api_key, key, self.virtual_key or "")
