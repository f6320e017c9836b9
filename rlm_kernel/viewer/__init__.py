"""The viewer: a page that shows recorded runs and runs in progress, with search and keyboard control.

One component, written as plain ES modules and one style sheet in `page/`, is used three ways: as the page of `rlm
view`, as a file that holds a log, and as a widget in a notebook. It builds elements and text nodes only, so nothing
that a model or a kernel wrote is read as HTML or executed. It loads nothing from other servers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rlm_kernel.errors import ConfigError
from rlm_kernel.installation import install_command

if TYPE_CHECKING:
    from rlm_kernel.types import RLMChatCompletion

__all__ = ["view"]


def view(
    run: RLMChatCompletion | str | os.PathLike[str],
    other: RLMChatCompletion | str | os.PathLike[str] | None = None,
    *,
    height: int = 640,
) -> Any:
    """Show a run in a notebook, or two runs side by side.

    Args:
        run: the result of a completion that had a logger, the log of a run (.jsonl, also while it grows), or its
            notebook. A path may name a child: `run.jsonl?child=3.1` is what prompt 1 of cell 3 started.
        other: a second run, to compare with the first.
        height: of the widget, in pixels.

    Returns:
        A widget. Front ends without widgets show the run as folded text.

    Raises:
        ConfigError: the result has no trajectory, or the extra `widget` is not installed.
        RecordingError: there is no such log.
    """
    from rlm_kernel.viewer.log_source import log_source, split_place

    shown = [split_place(one) if isinstance(one, str) else (one, ()) for one in (run, other) if one is not None]
    logs = [log_source(one) for one, _ in shown]
    try:
        from rlm_kernel.viewer.widget import RunWidget
    except ImportError as error:
        raise ConfigError(f"The viewer in a notebook needs an extra ({error}): {install_command('widget')}") from error
    return RunWidget(logs, height, [children for _, children in shown])
