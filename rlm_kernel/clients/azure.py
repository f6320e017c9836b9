"""The `azure_openai` backend: OpenAI's API at a resource of Azure, in its undated and its dated versions."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from urllib.parse import quote, urlsplit

from rlm_kernel.clients.openai import OpenAIAdapter
from rlm_kernel.errors import SHOWN_CHARACTERS, ConfigError
from rlm_kernel.text import clip

_DEPLOYMENT = re.compile(r"(?<![._-])[._-]*+[A-Za-z0-9][A-Za-z0-9._-]*+")
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(eq=False, repr=False)
class AzureAdapter(OpenAIAdapter):
    """Calls a deployment.

    Args:
        api_version: a dated version, such as ``"2024-10-21"``; None: the undated API at ``/openai/v1``.
        azure_deployment: the deployment, if it is not named like the model.
    """

    _: KW_ONLY
    api_version: str | None = None
    azure_deployment: str | None = None

    def check_other(self, name: str) -> None:
        """A deployment is a part of the URL."""
        if _DEPLOYMENT.fullmatch(name) is None:
            raise ConfigError(
                f"{clip(name, SHOWN_CHARACTERS)!r} cannot be the name of a deployment: use letters, digits, '.', '_' "
                "and '-'."
            )

    def __post_init__(self) -> None:
        deployment = self.azure_deployment or self.model_name
        self.base_url = self.url.rstrip("/")
        if self.api_version is not None and _DATED.match(self.api_version):
            self.base_url = f"{self.base_url}/openai/deployments/{quote(deployment, safe='')}"
            self.default_query = {"api-version": self.api_version, **(self.default_query or {})}
            self.headers = {"api-key": self.api_key, **(self.headers or {})}
        else:
            self.requested_model = deployment  # the undated URL does not name it
            if not urlsplit(self.url).path.strip("/"):
                self.base_url = f"{self.base_url}/openai/v1"
        super().__post_init__()
        if self.default_query:
            self.models_path = None  # a deployment has no list
