"""The names of backends and of environments, for annotations."""

from typing import Literal

ClientBackend = Literal[
    "openai",
    "anthropic",
    "openrouter",
    "vercel",
    "vllm",
    "portkey",
    "litellm",
    "azure_openai",
    "gemini",
    "ollama",
    "llamacpp",
]
EnvironmentType = Literal[
    "local",
    "docker",
    "modal",
    "prime",
    "daytona",
    "e2b",
    "jupyter",
    "ssh",
    "ipython",
    "agent",
]
