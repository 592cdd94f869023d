"""Which recordings of a folder count, and what is said of the others, of their names and of their people."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import CHANNELS, toy_graph, toy_manifest, write_bundle
from toy_head import write_headed
from typer.testing import CliRunner

from engine.bundle import load
from offline.cli import app
from offline.data.fingerprint import fingerprint_of_file
from offline.evaluate import run
from offline.evaluate.namesakes import namesakes
from offline.evaluate.recordings import find_people, openers, task_of
from offline.evaluate.run import evaluate
from offline.operate import operate
from streamer.errors import RecordingError

Writer = Callable[..., Path]
TWICE = "holds the same samples as S1/S1R1"
MET = ": left out with all recordings, since one of theirs had a part in the bundle's training"
NAMESAKE = "somebody of this name was learned from"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = toy_graph()
    return write_bundle(tmp_path_factory.mktemp("toy"), toy_manifest(graph), graph)


@pytest.fixture
def people(tmp_path: Path, run_writer: Writer) -> Path:
    """Two people, a run each."""
    for seed, name in enumerate(("S1", "S2")):
        run_writer(tmp_path / "people" / name / f"{name}R1.npz", seed=seed, channels=CHANNELS)
    return tmp_path / "people"


def called(path: Path, *names: str) -> Path:
    """Write a recording anew, its events called otherwise."""
    with np.load(path) as file:
        content = {key: file[key] for key in file.files}
    codes = json.dumps({str(code): name for code, name in enumerate(names)})
    np.savez(path, **{**content, "event_codes": codes})
    return path


def bcitrain(*words: str | Path, code: int = 0) -> str:
    """Run a command; return what it prints."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def test_a_copy_of_a_recording_counts_once(toy: Path, people: Path, tmp_path: Path) -> None:
    """A second file of the same samples is left out, whosever it is, with the reason."""
    alone = evaluate(load(toy), people, ["S1"])
    shutil.copy(people / "S1" / "S1R1.npz", people / "S1" / "S1R9.npz")
    shutil.copytree(people / "S1", people / "S3")
    found = evaluate(load(toy), people)
    assert found.skipped == {"S1/S1R9": TWICE, "S3/S1R1": TWICE, "S3/S1R9": TWICE}
    assert found.scores().per_subject["S1"] == alone.scores().per_subject["S1"]
    assert set(found.scores().per_subject) == {"S1", "S2"}
    about = operate(toy, people, tmp_path / "new").manifest.provenance["operating"]
    assert (about["subjects"], about["left_out_because"]) == (["S1", "S2"], {TWICE: 3})


def test_recordings_of_one_name_are_told_apart(toy: Path, people: Path, run_writer: Writer) -> None:
    """In a person's sub-folders, or in two formats, each has a name; streaming is compared with its own."""
    for seed, session in enumerate(("ses-1", "ses-2")):
        run_writer(people / "S2" / session / "run.npz", seed=50 + seed, channels=CHANNELS)
    shutil.copy(people / "S2" / "S2R1.npz", people / "S2" / "S2R1.NPZ")
    one = evaluate(load(toy), people, ["S2"])
    names = ["S2R1.NPZ", "ses-1/run", "ses-2/run"]
    assert [each.name for each in one.played] == names
    assert one.skipped == {"S2/S2R1.npz": "holds the same samples as S2/S2R1.NPZ"}


def test_a_recording_without_our_markers_is_told_how_to_rename_them(toy: Path, people: Path) -> None:
    """The reason lists its markers and names the option; with that it is scored."""
    for path in people.rglob("*.npz"):
        called(path, "T0", "T1", "T2")
    words = ("evaluate", toy, "--data", people)
    said = bcitrain(*words, code=2)
    assert "T0, T1, T2" in said
    assert "--labels OLD=left_fist" in said
    new = ("--labels", "T0=rest", "--labels", "T1=left_fist", "--labels", "T2=right_fist")
    assert json.loads(bcitrain(*words, *new, "--json"))["n_trials"] == 12


@pytest.mark.parametrize(
    ("option", "pair", "there"),
    [("--labels", "TT1=left_fist", "left_fist, rest, right_fist"), ("--channels", "XX=C3", "C3, C4, CP3")],
)
@pytest.mark.parametrize("command", ["evaluate", "operate"])
def test_a_new_name_for_what_no_recording_has_is_refused(
    toy: Path, people: Path, tmp_path: Path, command: str, option: str, pair: str, there: str
) -> None:
    """A slip of the pen is told, with the names that there are; what one recording has is no slip."""
    words = [command, toy, "--data", people, "--output", tmp_path / "out", option]
    said = bcitrain(*words, pair, code=2)
    assert f"{option} {pair} renames nothing" in said
    assert there in said
    assert not (tmp_path / "out").exists()
    called(people / "S2" / "S2R1.npz", "rest", "TT1", "right_fist")
    if option == "--labels":
        bcitrain(*words, pair)


@pytest.mark.parametrize("command", ["evaluate", "operate"])
def test_a_unit_for_recordings_that_tell_their_own_is_refused(
    toy: Path, people: Path, tmp_path: Path, command: str
) -> None:
    """It would be passed over; where one recording tells none it is taken for that."""
    words = [command, toy, "--data", people, "--output", tmp_path / "out", "--uv-per-count", "2"]
    said = " ".join(bcitrain(*words, code=2).split())
    assert "--uv-per-count 2 changes nothing" in said
    assert "tell their unit, uV" in said
    with np.load(people / "S2" / "S2R1.npz") as file:
        content = dict(file)
    np.savez(people / "S2" / "S2R1.npz", **content | {"units": "unknown"})
    bcitrain(*words)


@pytest.mark.parametrize(("at_s", "code"), [("4", 0), ("4.5", 2), ("20", 2)])
def test_an_answer_behind_every_trial_is_refused(toy: Path, people: Path, at_s: str, code: int) -> None:
    """What was put out then is of what was asked next; it says how long trials last."""
    said = " ".join(bcitrain("evaluate", toy, "--data", people, "--at-s", at_s, code=code).split())
    assert ("its trials last 4 s at most" in said) == (code == 2)


def test_names_are_asked_for_only_where_somebody_can_be_read(toy: Path, people: Path) -> None:
    """A folder of damaged recordings is that, and no slip of the pen."""
    for path in people.rglob("*.npz"):
        path.write_bytes(b"PK nothing")
    said = bcitrain("evaluate", toy, "--data", people, "--labels", "T1=left_fist", code=2)
    assert "renames nothing" not in said
    assert "Nothing to score" in said


@pytest.fixture
def trained(people: Path, tmp_path: Path) -> Path:
    """A bundle that learned from S1 in another form and from S2 as it is, and was made S9's."""
    graph = toy_graph()
    plain = load(write_bundle(tmp_path / "plain", toy_manifest(graph), graph))
    task = task_of(plain, people)
    known = [read().fingerprint for one in find_people(task, ["S2"]) for _, read in openers(task, one)]
    told = {
        "trained_on": {"folder": "S0", "train": ["S1", "S2"], "validate": ["S4"]},
        "fingerprints": {"train": known},
        "personal": {"from": "toy 1", "subject": "S9"},
    }
    return write_bundle(tmp_path / "trained", toy_manifest(graph) | {"provenance": told}, graph)


def test_somebody_learned_from_under_this_name_is_told_of(
    trained: Path, people: Path, tmp_path: Path, run_writer: Writer
) -> None:
    """In JSON, report and terminal, also by a file's name; not of who is known, nor of new people."""
    pytest.importorskip("matplotlib")
    for seed, name in enumerate(("S0", "S2", "S4", "S9", "S1R7", "S10")):
        run_writer(people / name / "new.npz", seed=40 + seed, channels=CHANNELS)
    words = ("evaluate", trained, "--data", people, "--output", tmp_path / "out")
    found: dict[str, Any] = json.loads(bcitrain(*words, "--json"))
    met, note = found["notes"]
    assert met == f"S2{MET}"
    assert set(found["excluded"]) == {"S2/S2R1", "S2/new"}
    assert note.startswith(f"S1, S1R7, S4, S9: {NAMESAKE}; if these are the same recordings in another form")
    assert note in (tmp_path / "out" / "evaluation.md").read_text().split("## Left out")[1]
    assert NAMESAKE in " ".join(bcitrain(*words).split())
    assert (
        json.loads(bcitrain("evaluate", trained, "--data", people, "--subjects", "S0", "--json"))["notes"]
        == []
    )


@pytest.mark.parametrize(
    ("person", "name", "same"),
    [
        ("eegmmidb_S007R04", "S007", True),
        ("eegmat_Subject01_2", "Subject01", True),
        ("ds-1 sub-01_eeg", "sub-01", True),
        ("S007", "S007", True),
        ("anna", "anna", True),
        ("eegmmidb_S0071", "S007", False),
        ("MS007R04", "S007", False),
        ("2S007", "S007", False),
        ("run_1", "1", False),
        ("joanna", "anna", False),
    ],
)
def test_a_name_is_found_in_a_files_name(toy: Path, person: str, name: str, same: bool) -> None:
    """Behind whatever is put before it, where neither side makes it another name; a bare number is none."""
    bundle = load(toy)
    provenance = {"trained_on": {"train": [name]}}
    learned = replace(bundle, manifest=bundle.manifest.model_copy(update={"provenance": provenance}))
    assert namesakes(learned, [person]) == [person] * same


def test_a_fit_of_the_decision_tells_of_them_too(
    trained: Path, people: Path, tmp_path: Path, run_writer: Writer
) -> None:
    """Of those in its training; whom it validated on it may be measured on."""
    run_writer(people / "S4" / "S4R1.npz", seed=44, channels=CHANNELS)
    words = ("operate", trained, "--data", people, "-o", tmp_path / "new", "--json")
    found = json.loads(bcitrain(*words))
    (note,) = found["notes"]
    assert note.startswith(f"S1: {NAMESAKE}")
    assert found["recordings_left_out"] == 1
    assert found["left_out_because"] == {"had a part in the bundle's training": 1}
    shown = bcitrain(*words[:-1])
    assert NAMESAKE in shown


def test_of_people_learned_from_no_other_recording_counts(
    trained: Path, people: Path, tmp_path: Path, run_writer: Writer
) -> None:
    """A net is surer of somebody it knows: whatever else there is of them is left out, and that is said."""
    run_writer(people / "S2" / "new.npz", seed=60, channels=CHANNELS)
    (people / "S2" / "spoilt.npz").write_bytes(b"PK nothing")
    one = evaluate(load(trained), people)
    assert {each.subject for each in one.played} == {"S1"}
    assert one.excluded == ["S2/S2R1", "S2/new"]
    assert one.notes()[0] == f"S2{MET}"
    about = operate(trained, people, tmp_path / "new").manifest.provenance["operating"]
    assert about["subjects"] == ["S1"]
    assert about["notes"][0] == f"S2{MET}"
    with pytest.raises(RecordingError, match="of people of whom others had"):
        evaluate(load(trained), people, ["S2"])


def test_whose_own_a_bundle_is_may_score_it(people: Path, tmp_path: Path, run_writer: Writer) -> None:
    """Their other recordings are what it was made for; those it was made from are left out."""
    run_writer(people / "S2" / "new.npz", seed=60, channels=CHANNELS)
    made = [fingerprint_of_file(people / "S2" / "S2R1.npz")]
    told = {
        "fingerprints": {"train": ["0" * 16], "personal": made},
        "personal": {"from": "toy 1", "subject": "S2"},
    }
    graph = toy_graph()
    manifest = toy_manifest(graph) | {"provenance": told}
    one = evaluate(load(write_bundle(tmp_path / "own", manifest, graph)), people)
    assert [f"{each.subject}/{each.name}" for each in one.played] == ["S1/S1R1", "S2/new"]
    assert one.excluded == ["S2/S2R1"]
    assert not any(NAMESAKE in note for note in one.notes())  # S2's own was recognised, in this very form


def test_a_report_takes_the_place_of_none_of_something_else(toy: Path, people: Path, tmp_path: Path) -> None:
    """Other bundles or data are refused before anything is played; more bundles and fewer people go on."""
    pytest.importorskip("matplotlib")
    out, graph = tmp_path / "out", toy_graph()
    other = write_bundle(tmp_path / "other", toy_manifest(graph) | {"name": "other"}, graph)
    words = ("evaluate", toy, "--data", people, "--output", out)
    bcitrain(*words)
    before = (out / "evaluation.json").read_bytes()
    elsewhere = shutil.copytree(people, tmp_path / "elsewhere")
    for wrong in ((other, "--data", people), (toy, "--data", elsewhere)):
        said = " ".join(bcitrain("evaluate", *wrong, "--output", out, code=2).split())
        assert "holds the report of" in said
        assert "name another folder" in said
    assert (out / "evaluation.json").read_bytes() == before
    bcitrain("evaluate", other, *words[1:])
    bcitrain("evaluate", toy, other, "--data", people, "--output", out, "--subjects", "S1")
    (out / "evaluation.json").write_text("[1]")
    assert "no report of an evaluation" in " ".join(bcitrain(*words, code=2).split())


def test_a_report_is_of_a_bundles_content_not_of_its_name(toy: Path, people: Path, tmp_path: Path) -> None:
    """One more of the same name goes on, although names change; one in the place of another is refused."""
    pytest.importorskip("matplotlib")
    out, graph = tmp_path / "out", toy_graph()
    again = write_bundle(tmp_path / "again", toy_manifest(graph) | {"provenance": {"seed": 2}}, graph)
    rest = ("--data", people, "--output", out, "--subjects", "S1")
    bcitrain("evaluate", toy, *rest)
    said = " ".join(bcitrain("evaluate", again, *rest, code=2).split())
    assert "holds the report of" in said
    assert "not by their names" in said
    bcitrain("evaluate", toy, again, *rest)
    bcitrain("evaluate", again, toy, *rest)
    assert "holds the report of" in bcitrain("evaluate", toy, *rest, code=2)


@pytest.mark.parametrize(
    ("held", "code"),
    [([], 0), ([{"bundle": "toy 1"}], 0), ([{"bundle": "toy 1 (toy)"}, {"bundle": "other 1"}], 2)],
)
def test_reports_of_before_go_by_their_names(
    toy: Path, people: Path, tmp_path: Path, held: list[dict[str, str]], code: int
) -> None:
    """They do not tell their bundles' content; where nothing is in one, nothing can be lost."""
    pytest.importorskip("matplotlib")
    (tmp_path / "evaluation.json").write_text(json.dumps({"evaluations": held}))
    words = ("evaluate", toy, "--data", people, "--output", tmp_path, "--subjects", "S1")
    assert ("holds the report of" in bcitrain(*words, code=code)) == (code == 2)


def test_no_picture_is_left_of_an_earlier_report(toy: Path, people: Path, tmp_path: Path) -> None:
    """What the figures no longer have is removed; files that are not ours stay."""
    pytest.importorskip("matplotlib")
    words = ("evaluate", toy, "--data", people, "--output", tmp_path / "out")
    bcitrain(*words)
    for name in ("calibrated.png", "mine.png"):
        (tmp_path / "out" / name).write_bytes(b"of before")
    before = {path.name for path in (tmp_path / "out").glob("*.png")}
    bcitrain(*words)
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == before - {"calibrated.png"}


def test_so_few_trials_refit_no_head(tmp_path: Path, people: Path) -> None:
    """Fewer than a refit takes are refused with that number, before anything is played."""
    headed = write_headed(tmp_path / "headed")
    said = bcitrain("evaluate", headed, "--data", people, "--calibrate-trials", "2", code=2)
    assert "--calibrate-trials 2" in said
    assert "at least 4" in said
    assert "refitted" in bcitrain("evaluate", headed, "--data", people, "--calibrate-trials", "4")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--calibrate-s", "20"), "carries no head"),
        (("--calibrate-trials", "20"), "carries no head"),
        (("--windowed",), "memory without an end"),
    ],
)
def test_what_a_bundle_cannot_be_asked_is_said_before_it_is_played(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], why: str
) -> None:
    """A bundle without a head, and one that never forgets, are refused right away."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("played")

    monkeypatch.setattr(run, "evaluate_all", refuse)
    manifest = toy_manifest(toy_graph())
    manifest["graph"]["bounded"] = False
    bundle = write_bundle(tmp_path / "bundle", manifest, toy_graph())
    assert why in " ".join(bcitrain("evaluate", bundle, "--data", people, *words, code=2).split())


def test_a_report_needs_a_folder(toy: Path, people: Path, tmp_path: Path) -> None:
    """Where it can go to none, nothing is played."""
    (tmp_path / "file").write_text("mine")
    said = bcitrain("evaluate", toy, "--data", people, "--output", tmp_path / "file", code=2)
    assert "name a folder that can be written" in " ".join(said.split())
