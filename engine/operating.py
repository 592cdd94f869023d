"""Operating points: what a decision stage does at which bound, and what a run's YAML makes of it.

A bundle's decision stage is measured at several bounds on people that the model has not learnt from.  A run
then asks for a rate, "at most one false activation per minute", and gets the bound that was found to keep it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError, model_validator

from engine.decision import AnyDecision, DecisionSettings
from engine.decision._rule import Seconds, Share
from engine.decision.evidence import Nats
from engine.faults import faults
from streamer.components import Config
from streamer.errors import ConfigError

BESIDE_A_RATE = {"false_per_min", "max_invalid"}  # what a bound for a rate does not hang on
TOLERANCE = 1e-9
COUNTED = 0.02  # people, that rounding a share of them may be off by
FEW = 10  # people; the rates of fewer say little about the next one
INTERPOLATED = ("hits", "wrong", "median_s", "within", "on")


class OperatingPoint(Config):
    """What the decision stage did on people that the model had not learnt from, at one bound.

    Attributes
    ----------
    false_per_min : float
        Labels that began while none was asked for, per minute of that, on average over people: an upper
        limit, as the bundle's provenance says.
    bound : float
        ``threshold`` or ``bound``, by the kind of decision.
    hits, wrong : float
        Shares of the commands whose first label was their own, and another one.
    median_s : float or None
        From the cue to its first label, s; None where no command got one.
    people : int or None
        On how many it was measured; None where that is not known.
    within : float or None
        Share of them whose own rate was not above ``false_per_min``.
    on : float or None
        Share of the time without a command for which a label was on, whenever it began, on average over them:
        what a rate of beginnings does not tell.
    """

    false_per_min: PositiveFloat
    bound: float
    hits: Share
    wrong: Share
    median_s: float | None = None
    people: PositiveInt | None = None
    within: Share | None = None
    on: Share | None = None


class Override(Config):
    """What a run's YAML changes of the bundle's own decision settings: the keys that are given, no others.

    Attributes
    ----------
    false_per_min : float, optional
        At most so many false activations per minute: sets the bound, from the bundle's operating points.

    The others are those of `engine.decision`; another ``kind`` than the bundle's starts from its defaults.
    """

    kind: Literal["evidence", "threshold"] | None = None
    false_per_min: PositiveFloat | None = None
    smoothing_s: Seconds | None = None
    dwell_s: Seconds | None = None
    refractory_s: Seconds | None = None
    max_invalid: Share | None = None
    threshold: Share | None = None
    release: Nats | None = None
    bound: Nats | None = None
    margin: Nats | None = None
    independent_s: Annotated[float, Field(gt=0, le=60)] | None = None
    leak_s: Seconds | None = None
    idle_prior: Annotated[float, Field(gt=0, lt=1)] | None = None
    clip: Annotated[float, Field(gt=0, le=100)] | None = None
    ceiling: Nats | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The keys that were given, with their values."""
        return self.model_dump(exclude_unset=True, exclude_none=True)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse what no bundle could make sense of."""
        bound = self.threshold if self.bound is None else self.bound
        if bound is not None and self.release is not None and self.release > bound:
            raise ValueError(f"release {self.release:g} must not exceed the bound or threshold {bound:g}")
        beside = sorted(set(self.given) - BESIDE_A_RATE)
        if self.false_per_min is not None and beside:
            raise ValueError(
                f"false_per_min is kept by the settings that it was measured with: leave out "
                f"{', '.join(beside)}, or set a bound by hand instead of a rate"
            )
        return self


def settle(
    own: DecisionSettings, points: Sequence[OperatingPoint], wanted: Override | None, bundle: str
) -> DecisionSettings:
    """Return the decision settings of a run.

    Parameters
    ----------
    own : DecisionSettings
        The bundle's.
    points : sequence of OperatingPoint
        The bundle's.
    wanted : Override or None
        The run's.
    bundle : str
        Its name, for messages.

    Raises
    ------
    ConfigError
        A setting that the bundle's kind of decision does not have, or a rate that was not measured.
    """
    if wanted is None:
        return own
    given = wanted.given
    rate = given.pop("false_per_min", None)
    if rate is not None:
        own = own.at(bound_for(points, rate, bundle))
    kind = given.setdefault("kind", own.kind)
    start = own.model_dump() if kind == own.kind else {}
    try:
        adapter: TypeAdapter[DecisionSettings] = TypeAdapter(AnyDecision)
        return adapter.validate_python({**start, **given})
    except ValidationError as error:
        raise ConfigError(
            f"decision: does not go with bundle {bundle}, which decides by {own.kind!r}:\n{faults(error)}"
        ) from error


def bound_for(points: Sequence[OperatingPoint], rate: float, bundle: str) -> float:
    """Return the least bound whose measured rate is not above this one.

    Between two points the bound goes with the logarithm of the rate; above the highest rate that was
    measured, the bound is that one's.

    Raises
    ------
    ConfigError
        There are no points, or each has a higher rate.
    """
    if not points:
        raise ConfigError(
            f"decision.false_per_min is {rate:g}, but nobody has measured what bundle {bundle} does at which "
            "bound. Set threshold or bound by hand, or measure it: bcitrain operate."
        )
    ordered = sorted(points, key=lambda point: point.false_per_min)
    lowest = ordered[0].false_per_min
    if rate < lowest * (1 - TOLERANCE):
        raise ConfigError(
            f"decision.false_per_min is {rate:g}; the lowest rate that was measured for bundle {bundle} is "
            f"{lowest:g} per minute. Ask for that one or more."
        )
    rates = [math.log(point.false_per_min) for point in ordered]
    return float(np.interp(math.log(rate), rates, [point.bound for point in ordered]))


def expected(
    own: DecisionSettings, points: Sequence[OperatingPoint], used: DecisionSettings
) -> OperatingPoint | None:
    """Return what was measured at the bound in use; None where it was not, or with other settings."""
    bound = float(getattr(used, used.bound_key))
    same = used.model_copy(update={name: getattr(own, name) for name in ("max_invalid", *used.labels_ignore)})
    if not points or same != own.at(bound) or used.max_invalid > own.max_invalid:
        return None  # more bad signal than any that was measured
    ordered = sorted(points, key=lambda point: point.bound)
    bounds = [point.bound for point in ordered]
    if not bounds[0] - TOLERANCE <= bound <= bounds[-1] + TOLERANCE:
        return None

    def between(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.interp(bound, bounds, known)) if len(known) == len(bounds) else None

    logs = [math.log(point.false_per_min) for point in ordered]
    found = {name: between([getattr(point, name) for point in ordered]) for name in INTERPOLATED}
    return OperatingPoint.model_validate(
        {
            **found,
            "false_per_min": math.exp(np.interp(bound, bounds, logs)),
            "bound": bound,
            "people": ordered[0].people,
        }
    )


def outlook(
    own: DecisionSettings,
    points: Sequence[OperatingPoint],
    used: DecisionSettings,
    *,
    personal: bool = False,
    interpolated: tuple[int, int] = (0, 0),
) -> str:
    """Say by what a run decides and what to expect of it, for the person at the screen.

    Parameters
    ----------
    own, points
        The bundle's.
    used : DecisionSettings
        The run's.
    personal : bool
        A head or filters of one person's decide: what was measured, was so without.
    interpolated : tuple of int
        How many of the bundle's channels are made of others, and of how many: it was measured with none.
    """
    by = f"by {used.kind} {getattr(used, used.bound_key):.3g}"
    point = expected(own, points, used)
    if point is not None and (personal or interpolated[0]):
        return f"{by}; {_not_as_measured(point, personal, *interpolated)}"
    if point is None:
        return f"{by}; nobody has measured what to expect of it"
    late = "" if point.median_s is None else f" after {point.median_s:.1f} s"
    on = "" if point.on is None else f", and one on for {100 * point.on:.2g} % of the time without a command"
    return (
        f"{by}; at most {_rate(point)} a minute on average over people"
        f"{_measured_on(point)}{on}: expect about {100 * point.hits:.0f} % of the commands{late}, "
        f"{100 * point.wrong:.0f} % taken for another{_doubt(point)}"
    )


def _not_as_measured(point: OperatingPoint, personal: bool, missing: int, n_chans: int) -> str:
    """Say what was measured, and what of it has changed since."""
    before = ["before it was made yours"] * personal + ["with all its electrodes there"] * bool(missing)
    since = " since" * personal + f" with {missing} of {n_chans} channels made of others" * bool(missing)
    return (
        f"{' and '.join(before)} that was at most {_rate(point)} a minute on "
        f"average over people. Nobody has measured what to expect{since}: watch your own rate before you "
        "trust it"
    )


def _rate(point: OperatingPoint) -> str:
    rate = f"{point.false_per_min:.2g}"
    return f"{rate} false activation{'' if rate == '1' else 's'}"


def _measured_on(point: OperatingPoint) -> str:
    """Say on how many people that was measured, and how many of them had no more."""
    if point.people is None or point.within is None:
        return ""
    count = point.within * point.people
    between = "about " if abs(count - round(count)) > COUNTED else ""  # between two points nobody was counted
    return f" ({between}{count:.0f} of the {point.people} measured had no more)"


def _doubt(point: OperatingPoint) -> str:
    """Say what so few people do not tell."""
    if point.people is None or point.people >= FEW:
        return ""
    people = "one person" if point.people == 1 else f"{point.people} people"
    return f"; measured on {people} only, and people differ: watch your own rate before you trust it"
