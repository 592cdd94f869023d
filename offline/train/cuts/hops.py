"""Every labelled hop of whole recordings at once: for models that are fitted in one convex step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from streamer.components import Config as BaseConfig


class Config(BaseConfig):
    """What `offline.train.fitted` fits a model on; there are no batches, and ``optim`` and ``seed`` are idle.

    Attributes
    ----------
    from_s : float
        For so long after a marker's onset hops carry no label.
    own_rest_s : float
        So much of each person's first rest gives the mean that the centred layer is fitted on differences
        from; it is not learned from.
    """

    kind: Literal["hops"] = "hops"
    from_s: NonNegativeFloat = 0.0
    own_rest_s: PositiveFloat = 60.0

    def unsettled(self, _context_s: float) -> str | None:
        """Say nothing: hops that see less than the model's left context are left out."""
        return None

    def contradictions(self, recipe: Any) -> Iterator[str]:
        """Say what does not go together."""
        if not getattr(recipe.model, "closed_form", False):
            yield f"cut hops is for models that are fitted in one step; {recipe.model.kind} learns from crops"
        if recipe.idle is None:
            yield "cut hops centres people on their rest: say with idle which class that is"
