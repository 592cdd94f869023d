"""A run changes only what it names, and a rate of false activations becomes the bound that keeps it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_bundle import CHANNELS, toy_graph

from engine.bundle import load
from engine.check import check
from engine.config import ManyConfig, parse, parse_as
from engine.decision import DecisionConfig, DecisionSettings, EvidenceConfig
from engine.live import run_config
from engine.manifest import FREE_ROWS
from engine.many_live import run_many
from engine.operating import OperatingPoint, Override, bound_for, expected, outlook, settle
from streamer.errors import ConfigError

OWN = EvidenceConfig(bound=3.0, leak_s=4.0, margin=0.25, refractory_s=1.0)
POINTS = (
    OperatingPoint(false_per_min=0.25, bound=4.0, hits=0.4, wrong=0.01, median_s=2.5),
    OperatingPoint(false_per_min=1.0, bound=3.0, hits=0.6, wrong=0.02, median_s=2.0),
    OperatingPoint(false_per_min=4.0, bound=1.0, hits=0.8, wrong=0.1, median_s=1.5),
)


def settled(own: DecisionSettings = OWN, **wanted: object) -> DecisionSettings:
    return settle(own, POINTS, Override.model_validate(wanted), "toy")


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        (OWN, {"margin": 1.0}),
        (OWN, {"bound": 2.0, "leak_s": 0.0}),
        (DecisionConfig(threshold=0.9, release=0.2), {"dwell_s": 0.0}),
        (DecisionConfig(threshold=0.9, release=0.2), {"kind": "threshold", "threshold": 0.5}),
    ],
)
def test_only_the_keys_that_are_given_change(own: DecisionSettings, wanted: dict[str, object]) -> None:
    """All others stay the bundle's, whatever the defaults are."""
    assert settled(own, **wanted).model_dump() == own.model_dump() | wanted


def test_another_kind_starts_from_its_own_defaults() -> None:
    """A threshold has no use for the settings of a sequential test."""
    assert settled(kind="threshold", threshold=0.7) == DecisionConfig(threshold=0.7)


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        (OWN, {"threshold": 0.7}),
        (DecisionConfig(), {"bound": 2.0}),
        (DecisionConfig(), {"leak_s": 1.0}),
        (OWN, {"kind": "threshold", "margin": 0.1}),
    ],
)
def test_a_setting_of_the_other_kind_is_refused(own: DecisionSettings, wanted: dict[str, object]) -> None:
    """The message names the key, the bundle and by what that decides."""
    key = next(name for name in wanted if name != "kind")
    with pytest.raises(ConfigError, match=rf"toy, which decides by '{own.kind}'[^$]*unknown key '{key}'"):
        settled(own, **wanted)


def test_every_setting_can_be_overridden() -> None:
    """The override knows the settings of every kind, and the rate; whatever is given arrives."""
    known = set(DecisionConfig.model_fields) | set(EvidenceConfig.model_fields)
    assert set(Override.model_fields) == known | {"false_per_min"}
    for kind, own in (("evidence", OWN), ("threshold", DecisionConfig(threshold=0.9, release=0.2))):
        for name in set(type(own).model_fields) - {"kind"}:
            value = 0.3 if own.model_dump()[name] is None else own.model_dump()[name] * 0.99
            assert settled(own, kind=kind, **{name: value}).model_dump()[name] == value


def test_a_rate_becomes_the_least_bound_that_keeps_it() -> None:
    """At a measured rate its bound, between two a bound between theirs, above all the lowest bound."""
    assert settled(false_per_min=1.0) == OWN
    assert settled(false_per_min=2.0) == OWN.at(2.0)  # half-way between 1 and 4 on a logarithmic scale
    assert settled(false_per_min=100) == OWN.at(1.0)


@given(st.floats(0.25, 10), st.floats(0.25, 10))
def test_a_lower_rate_never_gets_a_lower_bound(one: float, other: float) -> None:
    """The bound falls, or stays, as the rate rises."""
    low, high = sorted((one, other))
    assert bound_for(POINTS, low, "toy") >= bound_for(POINTS, high, "toy")


def test_a_rate_that_nobody_measured_is_refused() -> None:
    """Below the lowest one the message says that one; without a table it says that there is none."""
    with pytest.raises(ConfigError, match=r"lowest rate that was measured for bundle toy is 0\.25"):
        settled(false_per_min=0.1)
    with pytest.raises(ConfigError, match="nobody has measured"):
        settle(OWN, (), Override(false_per_min=1.0), "toy")


def test_a_rate_goes_with_the_settings_that_it_was_measured_with() -> None:
    """Any other setting beside it is refused, but that of rejection."""
    assert settled(false_per_min=1.0, max_invalid=0.3).max_invalid == 0.3
    with pytest.raises(ValueError, match="leave out margin"):
        Override(false_per_min=1.0, margin=0.1)


def test_what_to_expect_is_what_was_measured() -> None:
    """At a point its own figures, between two figures between theirs, elsewhere nothing."""
    assert expected(OWN, POINTS, OWN) == POINTS[1]
    between = expected(OWN, POINTS, OWN.at(2.0))
    assert between is not None
    assert (between.false_per_min, between.hits) == (pytest.approx(2.0), pytest.approx(0.7))
    assert expected(OWN, POINTS, OWN.at(5.0)) is None
    assert expected(OWN, POINTS, OWN.model_copy(update={"leak_s": 1.0})) is None
    assert expected(OWN, (), OWN) is None
    assert expected(OWN, POINTS, OWN.model_copy(update={"max_invalid": OWN.max_invalid / 2})) == POINTS[1]
    assert expected(OWN, POINTS, OWN.model_copy(update={"max_invalid": 1.0})) is None  # worse signal than any
    assert expected(OWN, POINTS, OWN.model_copy(update={"smoothing_s": 9.0})) == POINTS[1]  # of what is shown
    plain = DecisionConfig(threshold=0.75)
    assert expected(plain, POINTS[:1], plain.model_copy(update={"smoothing_s": 9.0})) is None


def test_the_outlook_is_a_sentence() -> None:
    """It says the rate, the share of commands and the time; or that nobody knows."""
    said = outlook(OWN, POINTS, OWN)
    assert said == (
        "by evidence 3; at most 1 false activation a minute on average over people: expect about 60 % of the "
        "commands after 2.0 s, 2 % taken for another"
    )
    never = [point.model_copy(update={"median_s": None}) for point in POINTS]
    assert "about 60 % of the commands, 2 % taken" in outlook(OWN, never, OWN)
    assert "at most 4 false activations a minute" in outlook(OWN, POINTS, OWN.at(1.0))
    assert outlook(OWN, (), OWN) == "by evidence 3; nobody has measured what to expect of it"
    plain = DecisionConfig(threshold=0.75)
    assert outlook(plain, (), plain).startswith("by threshold 0.75;")


def test_the_outlook_tells_what_a_rate_of_beginnings_does_not() -> None:
    """For which share of the time without a command one was on, between the points, where all say it."""
    held = [point.model_copy(update={"on": on}) for point, on in zip(POINTS, (0.0, 0.1, 0.3), strict=True)]
    assert "one on for 10 % of the time without a command" in outlook(OWN, held, OWN)
    assert "one on for 20 % of the time without a command" in outlook(OWN, held, OWN.at(2.0))
    assert "without a command" not in outlook(OWN, POINTS, OWN)


def test_what_the_bundles_head_did_is_no_promise_of_another() -> None:
    """Rates were measured with the bundle's own head: with another they are no promise."""
    said = outlook(OWN, POINTS, OWN, personal=True)
    assert "before it was made yours that was at most 1 false activation a minute" in said
    assert "Nobody has measured what to expect since" in said
    assert "expect about" not in said


def test_what_a_whole_cap_did_is_no_promise_of_half_a_one() -> None:
    """Rates were measured with every electrode there: with channels made of others they are no promise."""
    said = outlook(OWN, POINTS, OWN, interpolated=(14, 22))
    assert "with all its electrodes there that was at most 1 false activation a minute" in said
    assert "Nobody has measured what to expect with 14 of 22 channels made of others" in said
    assert "expect about" not in said
    assert outlook(OWN, POINTS, OWN, interpolated=(0, 22)) == outlook(OWN, POINTS, OWN)
    both = outlook(OWN, POINTS, OWN, personal=True, interpolated=(1, 22))
    assert "before it was made yours and with all its electrodes there that was" in both
    assert "Nobody has measured what to expect since with 1 of 22 channels made of others" in both


def test_a_run_that_lacks_electrodes_promises_nothing(toy_writer: Callable[..., Path]) -> None:
    """The run, the check and a run of several know what the stream lacks."""
    points = [point.model_dump() for point in POINTS]
    changed = {"readout.operating": points, "readout.decision": OWN.model_dump(), "graph.rows": "free"}
    bundle = str(toy_writer(toy_graph(FREE_ROWS), **changed))
    whole = {"kind": "synthetic", "seconds": 2, "speed": "max", "ch_names": list(CHANNELS)}
    config = parse({"source": whole | {"ch_names": list(CHANNELS[:-1])}, "bundle": bundle}, "run")
    lines: list[str] = []
    run_config(config, say=lines.append)
    lines.append(check(config)["decides"])
    sources = [{"source": whole}, {"source": config.source.model_dump(), "name": "half"}]
    run_many(parse_as(ManyConfig, {"sources": sources, "bundle": bundle}, "run"), say=lines.append)
    alone, checked, first, half = (line for line in lines if "by evidence" in line)
    for line in (alone, checked, half):
        assert f"with 1 of {len(CHANNELS)} channels made of others" in line
    assert first.startswith("decides  1: ")
    assert "expect about 60 %" in first
    assert half.startswith("decides  half: ")


@pytest.mark.parametrize(
    ("people", "doubt"), [(1, "measured on one person only"), (9, "measured on 9 people only"), (10, None)]
)
def test_the_outlook_says_what_few_people_do_not_tell(people: int, doubt: str | None) -> None:
    """With how many it was measured, how many had no more, and a warning where they are few."""
    said = outlook(OWN, measured_on(people, 1.0), OWN)
    assert f"({people} of the {people} measured had no more)" in said
    assert (doubt or "watch your own rate") in said if doubt else "watch your own rate" not in said


def measured_on(people: int, within: float) -> tuple[OperatingPoint, ...]:
    return tuple(point.model_copy(update={"people": people, "within": within}) for point in POINTS)


def test_how_many_had_no_more_lies_between_the_points() -> None:
    """The share goes with the bound, the number of people stays; where one point lacks it, it is unknown."""
    low, middle, high = measured_on(20, 0.5)
    points = (low, middle, high.model_copy(update={"within": 0.7}))
    found = expected(OWN, points, OWN.at(2.0))
    assert found is not None
    assert (found.people, found.within) == (20, pytest.approx(0.6))
    assert "(12 of the 20 measured had no more)" in outlook(OWN, points, OWN.at(2.0))
    assert "(about 12 of the 20 measured had no more)" in outlook(OWN, points, OWN.at(2.1))
    unknown = expected(OWN, (low, middle, POINTS[2]), OWN.at(2.0))
    assert unknown is not None
    assert unknown.within is None


def test_a_run_asks_for_a_rate(toy_writer: Callable[..., Path], tmp_path: Path) -> None:
    """From YAML to decisions: the run says what to expect, and a rate that was not measured ends it."""
    points = [point.model_dump() for point in POINTS]
    changed = {"readout.operating": points, "readout.decision": OWN.model_dump()}
    bundle = toy_writer(**changed)
    assert load(bundle).readout.operating == POINTS
    raw = {"source": {"kind": "synthetic", "seconds": 2, "speed": "max"}, "bundle": str(bundle)}
    said: list[str] = []
    run_config(parse(raw | {"decision": {"false_per_min": 2.0}}, "run"), say=said.append)
    assert [line for line in said if line.startswith("decides  by evidence 2; at most 2 ")]
    with pytest.raises(ConfigError, match="lowest rate"):
        run_config(parse(raw | {"decision": {"false_per_min": 0.01}}, "run"))
