"""An evaluation as files: ``evaluation.json`` with every figure, ``evaluation.md`` with the tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.bundle import Bundle
from engine.files import replacing
from offline.evaluate.compare import compare
from offline.evaluate.run import Evaluation, data_of, document_of, identity_of, names_of
from streamer.errors import ConfigError

JSON, MARKDOWN = "evaluation.json", "evaluation.md"
Document = dict[str, Any]
CALIBRATED = (
    "Accuracy of cues, balanced accuracy of windows, on the rest of each person's recordings: with the "
    "bundle's own head, and with the one that calibrating put in its place, where it did. What the labels "
    "did is told of both, at the bundle's own decision settings."
)
LIMITS = (
    "ITR is Wolpaw's, from the accuracy and the time from cue to answer alone: it supposes equally likely "
    "classes, evenly spread errors and no pause between answers, so it compares decoders and promises no "
    "speed. nMCC is (MCC + 1) / 2 of the labels as put out, over hops, no label being idle; 0.5 is what "
    "saying the same all the time gives. False/min counts labels that begin while none is asked for; falsely "
    "on is the share of that time for which one was on, whenever it began. ECE is over 15 bins of equally "
    "many; few answers alone give some. "
    "Coverage: the least confident answers are rejected first."
)
PAIRED = (
    "Paired over subjects, on the recordings that both were scored on: exact Wilcoxon signed-rank, corrected "
    "by Holm; 95-% bootstrap interval of the mean difference."
)


def document(evaluations: Sequence[Evaluation]) -> Document:
    """Return ``evaluations``, a mapping each, and ``comparisons`` of any two."""
    return {
        "evaluations": [document_of(one, one.scores()) for one in evaluations],
        "comparisons": compare(evaluations),
    }


def refuse_other(folder: Path, bundles: Sequence[Bundle], data: Path) -> None:
    """Refuse a folder whose report is of other data, or of a bundle that is no longer asked; `ConfigError`.

    Reports of before say neither of what data they are, nor more of a bundle than its name.
    """
    path = folder / JSON
    if not path.is_file():
        return
    try:
        held = json.loads(path.read_bytes())["evaluations"]
        of = {str(one["bundle"]) for one in held}
        told = {str(one.get("identity", one["bundle"])) for one in held}
        where = {str(one.get("data", data_of(data))) for one in held}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is no report of an evaluation ({error}): name another folder, or delete it."
        ) from error
    asked = {*map(identity_of, bundles), *names_of(bundles), *(bundle.label for bundle in bundles)}
    if not (told <= asked and where <= {data_of(data)}):
        what = f"{', '.join(sorted(of))} over {', '.join(sorted(where))}"
        raise ConfigError(
            f"{folder} holds the report of {what}, which would be lost (bundles are told apart by what they "
            f"hold, not by their names): name another folder, or delete {JSON} there (what was played is "
            "kept)."
        )


def write(content: Document, folder: Path) -> None:
    """Write the document and its tables; each file is there whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((JSON, json.dumps(content, indent=1) + "\n"), (MARKDOWN, markdown(content))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text)


def markdown(content: Document) -> str:
    """Return the tables for people."""
    made = content["evaluations"]
    parts = ["# Evaluation", _table(summary(made)), *_protocols(made)]
    parts += ["## Per subject", "Accuracy.", _table(per_subject(made))]
    if any(one["over_time"] for one in made):
        parts += ["## Accuracy by time after the cue", _table(over_time(made))]
    for one in made:
        if one["idle"]:
            title = f"## Hits against false activations: {one['bundle']}"
            parts += [title, _table(one["idle"]["curve"])]
    parts += [_windowed(one) for one in made if "windowed" in one]
    for one in (one for one in made if one.get("calibrated")):
        found = one["calibrated"]
        title = f"## Calibrated by {found['words']}: {one['bundle']}"
        parts += [title, CALIBRATED, _table(calibrated(found))]
    if content["comparisons"]:
        parts += ["## Comparisons", PAIRED, _table(comparisons(content))]
    return "\n\n".join([*parts, *_left_out(made), LIMITS]) + "\n"


def summary(made: Sequence[Document]) -> list[Document]:
    """Return a row per bundle."""
    return [
        {
            "bundle": one["bundle"],
            "subjects": one["subjects"]["n"],
            "answers": one["n"],
            "accuracy": one["accuracy"],
            "balanced": one["balanced_accuracy"],
            "kappa": one["kappa"],
            "macro-F1": one["macro_f1"],
            "AUROC / AUC-PR": f"{_cell(one['auroc'])} / {_cell(one['auc_pr'])}",
            "mean ± SD over subjects": _mean_sd(one["subjects"]),
            "worst": one["subjects"]["worst"],
            "bits/min": one["subjects"]["itr_bits_per_min"]["mean"],
            "ECE hops / answers": f"{_cell(one['ece']['hops'])} / {_cell(one['ece']['answers'])}",
            "area under coverage": one["coverage_risk"]["area"],
            **_live(one["idle"]),
        }
        for one in made
    ]


def per_subject(made: Sequence[Document]) -> list[Document]:
    """Return a row per subject, a column per bundle, and the mean, SD and worst at the end."""
    names = sorted({name for one in made for name in one["per_subject"]})
    rows: list[Document] = []
    for name in names:
        found = [one["per_subject"].get(name) for one in made]
        n = next(cell["n"] for cell in found if cell)
        cells = {
            one["bundle"]: cell["accuracy"] if cell else None for one, cell in zip(made, found, strict=True)
        }
        rows.append({"subject": name, "n": n, **cells})
    for row in ("mean", "sd", "worst"):
        rows.append({"subject": row, "n": None, **{one["bundle"]: one["subjects"][row] for one in made}})
    return rows


def calibrated(found: Document) -> list[Document]:
    """Return a row per subject, zero-shot and refitted, and the mean at the end."""
    kept = ("zero_shot", "refitted", "gain_points", "trials", "new_head")
    rows = [
        {"subject": name, **{key: row[key] for key in kept}, **_both(row["live"])}
        for name, row in found["per_subject"].items()
    ]
    mean = {key: found[key] for key in kept[:3]} | {"trials": None, "new_head": found["new_heads"]}
    return [*rows, {"subject": "mean", **mean, **_both(found["live"])}]


def _both(live: Document) -> Document:
    """Return what either head's labels did, "before / refitted"."""
    keys = {"hits": "hits", "false/min": "false_activations_per_min", "falsely on": "falsely_on"}
    heads = [live[head] or {} for head in ("zero_shot", "refitted")]
    return {title: " / ".join(_cell(one.get(key)) for one in heads) for title, key in keys.items()}


def over_time(made: Sequence[Document]) -> list[Document]:
    """Return a row per time after the cue, a column per bundle."""
    tables = {one["bundle"]: one["over_time"] for one in made if one["over_time"]}
    known = {
        name: dict(zip(table["seconds"], table["accuracy"], strict=True)) for name, table in tables.items()
    }
    seconds = sorted({at_s for table in known.values() for at_s in table})
    return [
        {"s after the cue": at_s, **{name: table.get(at_s) for name, table in known.items()}}
        for at_s in seconds
    ]


def comparisons(content: Document) -> list[Document]:
    """Return a row per pair."""
    return [
        {
            "first": row["first"],
            "second": row["second"],
            "subjects": row["n"],
            "difference": f"{row['difference']:+.3f} ({_between(row['interval'])})",
            "better / equal / worse": f"{row['better']} / {row['equal']} / {row['worse']}",
            "p": row["wilcoxon_p"],
            "p (Holm)": row["holm_p"],
        }
        for row in content["comparisons"]
    ]


def _live(idle: Document | None) -> Document:
    keys = {
        "hits": "hits",
        "wrong": "wrong_side",
        "false/min": "false_activations_per_min",
        "falsely on": "falsely_on",
        "time to decide, s": "median_time_to_decision_s",
        "nMCC": "nmcc",
        "hits, better half": "hits_better_half",
    }
    return {title: None if idle is None else idle[key] for title, key in keys.items()}


def _protocols(made: Sequence[Document]) -> list[str]:
    by_words: dict[str, list[str]] = {}
    for one in made:
        by_words.setdefault(one["protocol"], []).append(one["bundle"])
    return [
        f"{words[0].upper()}{words[1:]}; {made[0]['from']}{_who(names, made)}."
        for words, names in by_words.items()
    ]


def _who(names: Sequence[str], made: Sequence[Document]) -> str:
    return "" if len(names) == len(made) else f" ({', '.join(names)})"


def _left_out(made: Sequence[Document]) -> list[str]:
    lines = []
    for one in made:
        if one["excluded"]:
            n = len(one["excluded"])
            lines.append(f"{one['bundle']}: {n} recordings of people it was trained on left out.")
        lines += [f"{one['bundle']}: {where} not scored: {why}" for where, why in one["skipped"].items()]
        lines += [f"{one['bundle']}: {note}." for note in one["notes"]]
        skipped = (one.get("calibrated") or {}).get("skipped", {})
        for reason in dict.fromkeys(skipped.values()):
            names = ", ".join(name for name, why in skipped.items() if why == reason)
            lines.append(f"{one['bundle']}: {names} not calibrated: {reason}")
    return ["## Left out", *lines] if lines else []


def _windowed(one: Document) -> str:
    found = one["windowed"]
    return (
        f"{one['bundle']}, each answer from its window alone instead of the stream: accuracy "
        f"{found['windowed']:.4f} against {found['streamed']:.4f}, {found['differ']} of {found['n']} answers "
        f"differ; largest difference of a probability {found['largest_difference']:.1e}."
    )


def _mean_sd(subjects: Document) -> str:
    sd = "" if subjects["sd"] is None else f" ± {subjects['sd']:.3f}"
    return "" if subjects["mean"] is None else f"{subjects['mean']:.3f}{sd}"


def _between(interval: Sequence[float]) -> str:
    return " to ".join(f"{end:+.3f}" for end in interval)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "Nothing."
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *[[_cell(row.get(key)) for key in head] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("|", "/")
