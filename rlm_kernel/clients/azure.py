"""The `azure_openai` backend: OpenAI's API at a resource of Azure, in its undated and its dated versions."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from urllib.parse import quote, urlsplit

from rlm_kernel.clients.openai import OpenAIAdapter

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
