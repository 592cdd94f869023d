"""From the model's outputs to decisions: calibrated, smoothed, held, rejected.

Each module is one ``kind``: a rule that says when enough speaks for a class.  `Decider` is what they share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.decision._decider import Decider, softmax
from engine.decision._rule import DecisionSettings, Rule
from engine.decision.evidence import Config as EvidenceConfig
from engine.decision.threshold import Config as DecisionConfig
from streamer.components import modules

if TYPE_CHECKING:
    AnyDecision = DecisionSettings
else:
    from typing import Annotated, Union

    from pydantic import Discriminator, Tag

    def _kind(given: Any) -> Any:
        """Return the kind of these settings; those without one are a threshold's, as they once all were."""
        if isinstance(given, dict):
            return given.get("kind", "threshold")
        return getattr(given, "kind", None)

    AnyDecision = Annotated[
        Union[tuple(Annotated[m.Config, Tag(kind)] for kind, m in modules("engine.decision").items())],  # noqa: UP007
        Discriminator(_kind),
    ]

__all__ = [
    "AnyDecision", "Decider", "DecisionConfig", "DecisionSettings", "EvidenceConfig", "Rule", "softmax",
]  # fmt: skip
