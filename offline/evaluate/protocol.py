"""What is asked of a decoder: one answer per cued trial, or one per window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, TypeAdapter, model_validator

from engine.scoring import ANSWER_AT_S, ANSWER_FROM_S
from streamer.components import Config

Seconds = Annotated[float, Field(ge=0)]


class Live(Config):
    """What counts in live use, where a recording asks for a command now and for nothing then.

    Attributes
    ----------
    settle_s : float
        A label that begins so soon after a marker of idle is neither false nor right: the model still hears
        what was before.
    clear_s : float
        Where no marker lies, nothing is asked for from so long after a command's marker to so long before
        the next: people begin a movement before its marker, and go on behind it.
    early_s : float
        A label that begins no earlier than this before a command's marker answers that command.
    """

    settle_s: Seconds = 0.5
    clear_s: Seconds = 1.0
    early_s: Seconds = 0.0


class Trials(Config):
    """One answer per cued trial, among the classes that are not idle.

    Attributes
    ----------
    from_s, at_s : float
        The answer is given ``at_s`` after the cue, from the valid decisions stamped later than ``from_s``
        after it.  A trial that the recording ends before the end of is left out; one without a valid
        decision counts as wrong.
    answer : "mean" or "last"
        From the mean of the decisions' log-probabilities, or from the last decision alone.
    live : Live
    """

    kind: Literal["trials"] = "trials"
    from_s: Seconds = ANSWER_FROM_S
    at_s: PositiveFloat = ANSWER_AT_S
    answer: Literal["mean", "last"] = "mean"
    live: Live = Live()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.at_s <= self.from_s:
            raise ValueError(f"at_s {self.at_s:g} must be later than from_s {self.from_s:g}")
        return self

    def asked(self, classes: Sequence[str], idle: str | None) -> list[int]:
        """Return the places of the classes that may be answered."""
        return [place for place, name in enumerate(classes) if name != idle]

    def told(self) -> str:
        """Say it in words, for a report."""
        return (
            f"one answer per cue, {self.at_s:g} s after it, from the {self.answer} log-odds of what was put "
            f"out from {self.from_s:g} s after the cue on, among the classes other than idle"
        )


class Windows(Config):
    """Windows that follow each other in each marker's span; all classes may be answered.

    Attributes
    ----------
    from_s, window_s : float
        Windows of this length follow each other from so long after a marker's onset while they fit into
        its duration; each is answered by the last decision stamped in it, warm or not.
    smoothing_s : float
        Answered instead by the mean log-probability of the decisions of so long before it, itself included,
        whatever was asked for by then.
    live : Live
    """

    kind: Literal["windows"] = "windows"
    from_s: Seconds = 0.0
    window_s: PositiveFloat
    smoothing_s: Seconds = 0.0
    live: Live = Live()

    def asked(self, classes: Sequence[str], _idle: str | None) -> list[int]:
        """Return the places of the classes that may be answered."""
        return list(range(len(classes)))

    def told(self) -> str:
        """Say it in words, for a report."""
        said = f" and those of {self.smoothing_s:g} s before it" if self.smoothing_s else ""
        return (
            f"windows of {self.window_s:g} s following each other from {self.from_s:g} s after each marker, "
            f"each answered by the last decision stamped in it{said}, among all classes"
        )


Protocol = Annotated[Trials | Windows, Field(discriminator="kind")]


def parse(content: object) -> Trials | Windows:
    """Return the protocol that this mapping says; raises pydantic's ValidationError."""
    adapter: TypeAdapter[Trials | Windows] = TypeAdapter(Protocol)
    return adapter.validate_python(content)
