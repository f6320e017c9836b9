"""The options of a command that name its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser


def add_model_arguments(parser: ArgumentParser, backend: str) -> None:
    """Declare the options that name the root model.

    Args:
        parser: where they are declared.
        backend: the default backend.
    """
    add = parser.add_argument
    add("--backend", help=f"the provider of the model (default: {backend})")
    add("--model", help="the name of the model")
    add("--base-url", metavar="URL", help="the endpoint of the provider")
    add(
        "--backend-kwarg",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="another argument of the backend; VALUE is JSON or text",
    )
