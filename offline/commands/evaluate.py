"""`bcitrain evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.bundle_folder import refuse_unwritable
from engine.output import Output
from offline.commands._bar import bar
from offline.commands._folder import (
    Channels,
    Hold,
    Holes,
    Labels,
    SubjectPattern,
    TrialS,
    UvPerCount,
    folder_of,
    given,
)
from offline.commands._shared import DONE_STAYS, DataFolder, Json, Subjects, keeping, need
from streamer.errors import ConfigError

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from offline.evaluate.calibrating import Settings
    from offline.evaluate.recordings import Options

Bundles = Annotated[
    list[str], typer.Argument(metavar="BUNDLE...", help="Folders of bundles, or names of shipped ones.")
]


def evaluate(
    bundles: Bundles,
    data: DataFolder,
    subjects: Subjects = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for JSON, Markdown, pictures and what was played; a second run goes on."),
    ] = None,
    subject_pattern: SubjectPattern = None,
    hold: Hold = None,
    uv_per_count: UvPerCount = None,
    holes: Holes = None,
    from_s: Annotated[
        float | None, typer.Option(min=0, help="Score from so long after each marker on, s.")
    ] = None,
    at_s: Annotated[
        float | None,
        typer.Option(min=0, help="Answer each cue so long after it, s; no longer than trials last."),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(help="Answer a cue from the mean of its hops, or the last one: mean or last."),
    ] = None,
    window_s: Annotated[
        float | None, typer.Option(min=0, help="Score windows of this length instead of cued trials, s.")
    ] = None,
    smoothing_s: Annotated[
        float | None,
        typer.Option(min=0, help="Answer windows with the decisions of so long before as well, s."),
    ] = None,
    channels: Channels = None,
    labels: Labels = None,
    trial_s: TrialS = None,
    calibrate_s: Annotated[
        float | None,
        typer.Option(min=1, help="Also refit each person's head on their first s, and score the rest."),
    ] = None,
    calibrate_trials: Annotated[
        int | None, typer.Option(min=1, help="Refit on at most so many labelled trials of each person.")
    ] = None,
    calibrate_rest: Annotated[
        float, typer.Option(min=0, help="Centre on the first s of each person, which are rest.")
    ] = 0.0,
    windowed: Annotated[
        bool, typer.Option("--windowed", help="Also answer from windows alone: streaming must say the same.")
    ] = False,
    json: Json = False,
) -> None:
    """Score bundles on recordings through the live pipeline; those they were trained on are left out."""
    out = Output(json)
    with out.errors():
        need("sklearn", *(["matplotlib"] if output else []))
        _refuse_few(calibrate_trials)
        if output is not None:
            refuse_unwritable(output)
        from offline.evaluate.recordings import Options

        options = Options(
            folder=folder_of(subject_pattern, hold, uv_per_count, holes, channels, labels),
            protocol=given(
                from_s=from_s, at_s=at_s, answer=answer, window_s=window_s, smoothing_s=smoothing_s
            ),
            trial_s=trial_s,
        )
        settings = _settings(calibrate_s, calibrate_trials, calibrate_rest)
        loaded = _loaded(bundles)
        _refuse_unfit(loaded, settings, windowed)
        if output is not None:
            from offline.evaluate.report import refuse_other

            refuse_other(output, loaded, data)
        content = _evaluated(out, _Asked(data, subjects, options, output, settings, windowed), loaded)
        if output is not None:
            from offline.evaluate.plots import draw_all
            from offline.evaluate.report import write

            write(content, output)
            draw_all(content, output)
        if json:
            out.document(content if len(bundles) > 1 else content["evaluations"][0])
        else:
            _show(out, content, output)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of all bundles."""

    data: Path
    subjects: list[str] | None
    options: Options
    output: Path | None
    settings: Settings | None
    windowed: bool


def _loaded(names: Sequence[str]) -> list[Bundle]:
    """Return the bundles; what is wrong with several is told of each, at once."""
    from engine.bundle import load
    from engine.faults import for_each

    if len(names) == 1:
        return [load(names[0])]
    return for_each(names, lambda place: load(names[place]))


def _settings(seconds: float | None, trials: int | None, rest_s: float) -> Settings | None:
    """Return how much of each person's recordings calibrates; None where nothing does."""
    from offline.evaluate.calibrating import Settings

    if not (seconds or trials or rest_s):
        return None
    # Rest alone calibrates with nothing behind it.
    return Settings(seconds=seconds or (None if trials else rest_s), trials=trials, rest_s=rest_s)


def _refuse_unfit(bundles: Sequence[Bundle], settings: Settings | None, windowed: bool) -> None:
    """Refuse a bundle that cannot be asked for all of it before hours of playing."""
    from offline.evaluate.calibrating import refuse_headless
    from offline.evaluate.windowed import refuse_unbounded

    for bundle in bundles:
        if settings is not None:
            refuse_headless(bundle, settings)
        if windowed:
            refuse_unbounded(bundle)


def _evaluated(out: Output, asked: _Asked, bundles: Sequence[Bundle]) -> dict[str, Any]:
    """Play, score, and return every figure."""
    from offline.evaluate.calibrating import evaluate_calibrated
    from offline.evaluate.report import document
    from offline.evaluate.run import evaluate_all
    from offline.evaluate.windowed import evaluate_windowed

    data, subjects, options, keep = asked.data, asked.subjects, asked.options, asked.output
    lost = "nothing is kept: with --output FOLDER what was played is, and the same command goes on"
    with keeping(out, DONE_STAYS if keep else lost), bar(out, "evaluating") as progress:
        made = evaluate_all(bundles, data, subjects, options=options, keep=keep, progress=progress)
        progress("scoring", 0, 1)
        content = document(made)
        for one, played in zip(content["evaluations"], made, strict=True):
            if asked.settings is not None:
                one["calibrated"] = evaluate_calibrated(
                    played.bundle,
                    data,
                    subjects,
                    asked.settings,
                    options=options,
                    keep=keep,
                    progress=progress,
                )
            if asked.windowed:
                one["windowed"] = evaluate_windowed(played, subjects, progress=progress)
    return content


def _refuse_few(trials: int | None) -> None:
    """Refuse a calibration by fewer trials than a refit takes: nobody would get another head."""
    from engine.refit_choice import MIN_TRIALS

    if trials is not None and trials < MIN_TRIALS:
        raise ConfigError(
            f"--calibrate-trials {trials} refits no head: give at least {MIN_TRIALS} labelled trials."
        )


def _show(out: Output, content: dict[str, Any], output: Path | None) -> None:
    """Print the report for people: figures, subjects, curves, comparisons."""
    from offline.evaluate import report

    made = content["evaluations"]
    for row in report.summary(made):
        out.result(row)
    for one in made:
        out.result(
            {key: one[key] for key in ("protocol", "excluded", "skipped", "notes", "adapted") if one[key]}
        )
    out.table("per subject", report.per_subject(made))
    if any(one["over_time"] for one in made):
        out.table("accuracy by time after the cue", report.over_time(made))
    for one in (one for one in made if one["idle"]):
        out.table(f"hits against false activations: {one['bundle']}", one["idle"]["curve"])
    for one in (one for one in made if "windowed" in one):
        out.result({"bundle": one["bundle"], "from windows alone": one["windowed"]})
    for one in (one for one in made if one.get("calibrated")):
        found = one["calibrated"]
        out.table(f"calibrated by {found['words']}: {one['bundle']}", report.calibrated(found))
        if found["skipped"]:
            out.result({"not calibrated": found["skipped"]})
    if content["comparisons"]:
        out.table("paired over subjects", report.comparisons(content))
    if output is not None:
        out.result({"written": str(output)})
