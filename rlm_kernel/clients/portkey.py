"""The `portkey` backend: the AI gateway, which has OpenAI's API and takes its settings as headers.

OpenAI's SDK retries, also if a provider is busy. The gateway only does if a config asks it to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from rlm_kernel.clients.openai import OpenAIAdapter
from rlm_kernel.errors import SHOWN_CHARACTERS, ConfigError
from rlm_kernel.text import clip


@dataclass(eq=False, repr=False)
class PortkeyAdapter(OpenAIAdapter):
    """Calls a model through Portkey's gateway, hosted or self-hosted.

    Args:
        provider: the model's provider, if the name of the model does not contain it (as ``@provider/model`` does).
        virtual_key: the id of a provider's key that is stored in the gateway.
        config: a config of the gateway, or its id. Retries in it come on top of `max_retries`.
        custom_host: the provider's URL, if only the gateway can reach it.
        Authorization: the provider's key, for a gateway that stores none.
    """

    _: KW_ONLY
    provider: str | None = None
    virtual_key: str | None = None
    config: str | Mapping[str, Any] | None = None
    custom_host: str | None = None
    Authorization: str | None = None

    default_url: ClassVar[str] = "https://api.portkey.ai/v1"

    def open(self) -> Any:
        """Build an `AsyncOpenAI` with the headers of the gateway."""
        import openai

        named = {
            "api-key": self.api_key,
            "provider": self.provider,
            "virtual-key": self.virtual_key,
            "config": json.dumps(dict(self.config)) if isinstance(self.config, Mapping) else self.config,
            "custom-host": self.custom_host,
        }
        client: Any = super().open()
        client._custom_headers = {  # noqa: SLF001 (the argument only adds to them)
            **{f"x-portkey-{name}": value for name, value in named.items() if value is not None},
            **(self.headers or {}),
        }
        key = (self.Authorization or "").removeprefix("Bearer ")
        self.options = {"headers": {"Authorization": f"Bearer {key}" if key else openai.Omit()}}
        return client

    def check_other(self, name: str) -> None:
        """``@provider/`` chooses the provider and its key that is stored in the gateway."""
        if (slug := _slug_of(name)) is not None and slug != _slug_of(self.model_name):
            raise ConfigError(
                f"{clip(name, SHOWN_CHARACTERS)!r} chooses another provider and key of the gateway. The user can add "
                "it to other_backends."
            )

    @property
    def price_source(self) -> Mapping[str, str] | None:
        """The provider in ``@provider/model``, or the argument."""
        provider = _slug_of(self.model_name) or self.provider
        return {"provider_id": provider} if provider and self.custom_host is None else None

    def price_names(self, answered_by: str) -> tuple[str, ...]:
        """The price table knows the name without ``@provider/``."""
        return (answered_by, self.model_name.rpartition("/")[2])

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys of the gateway and of the provider."""
        key = (self.Authorization or "").removeprefix("Bearer ")
        return (self.api_key, key, self.virtual_key or "", *self.header_secrets)


def _slug_of(name: str) -> str | None:
    """The provider in ``@provider/model``; None if the name has none."""
    name = name.strip()
    return name[1:].partition("/")[0] if name.startswith("@") else None
