"""`bcitrain card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.output import Output
from offline.commands._shared import Json


def card(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")],
    text: Annotated[Path, typer.Argument(metavar="CARD", help="The card; may be the bundle's own, edited.")],
    json: Json = False,
) -> None:
    """Put a model card into a bundle, and its hash into the manifest."""
    out = Output(json)
    with out.errors():
        from offline.card import put

        out.result({"bundle": put(bundle, text).label, "card": str(text)})
