"""The settings of an `RLM` as an HTML card, for a notebook. It holds no key."""

from __future__ import annotations

from dataclasses import fields

from rlm_kernel.engine.config import RunConfig
from rlm_kernel.html import cards
from rlm_kernel.html.markup import Markup


def settings_card(config: RunConfig, logger: object = None) -> Markup:
    """Models, place, depth, limits, tools and log of an `RLM`."""
    models, limits = config.models, config.limits
    set_limits = [
        f"{f.name} {getattr(limits, f.name):,}" for f in fields(limits) if getattr(limits, f.name) is not None
    ]
    folder = getattr(logger, "log_dir", None)
    rows = {
        "model": models.root.model,
        "sub-calls": ", ".join(lm.model for lm in models.others) or models.root.model,
        "environment": config.environment.name,
        "depth": f"{config.depth} of {config.max_depth}",
        "turns": f"at most {config.max_iterations:,}",
        "limits": ", ".join(set_limits) or "none",
        "tools": ", ".join(tool.name for tool in config.tools) or "none",
        "log": "none" if logger is None else str(folder or "in memory"),
    }
    return cards.card(cards.title("RLM", config.profile.name), cards.settings(rows))
