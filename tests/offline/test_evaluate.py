"""Evaluation: through the pipeline, on what was not trained on, counting what it leaves out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import spoil, write_edf
from numpy.typing import NDArray
from toy_bundle import CHANNELS, CLASSES, HOP, KEEP, toy_graph, toy_manifest, weights, write_bundle
from typer.testing import CliRunner

from engine.adapt import fit
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle, load
from engine.config import parse as parse_run
from engine.live import Observer, run_config
from offline.cli import app
from offline.data.fingerprint import content_of
from offline.evaluate.answers import answers
from offline.evaluate.decide import decide
from offline.evaluate.played import ARRAYS, Played, play
from offline.evaluate.protocol import Trials
from offline.evaluate.recordings import Options, find_people, look, openers, task_of
from offline.evaluate.run import document_of, evaluate, evaluate_all, kept_as
from offline.operate import operate
from offline.probe.tasks import Session
from streamer.errors import BundleError, RecordingError
from streamer.sources.recording import load as load_recording
from streamer.types import Decision, make_chunk

Writer = Callable[..., Path]
FROM_S, AT_S = 0.5, 3.0


def bundle_at(folder: Path, **changes: Any) -> Bundle:
    """Write the toy bundle, its provenance or its readout changed."""
    graph = toy_graph()
    return load(write_bundle(folder, {**toy_manifest(graph), **changes}, graph))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_at(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run_writer: Writer) -> Path:
    """Three subjects, two runs each."""
    path = tmp_path_factory.mktemp("people")
    for i, subject in enumerate(("S1", "S2", "S3")):
        for run in (1, 2):
            run_writer(path / subject / f"{subject}R{run}.npz", seed=10 * i + run, channels=CHANNELS)
    return path


def session_of(toy: Bundle, folder: Path, subject: str) -> Session:
    task = task_of(toy, folder)
    _, read = next(openers(task, find_people(task, [subject])[0]))
    return read()


def whole(toy: Bundle, session: Session) -> NDArray[np.float64]:
    """Compute the toy's logits over a recording at once, with NumPy; (n_hops, n_classes)."""
    recording = session.recording
    chain = fit(toy, recording.info).chain
    signal = chain(make_chunk(recording.data, 0, recording.times)).data.astype(np.float64)
    n = len(signal) // HOP
    now = signal[: n * HOP].reshape(n, HOP, -1).mean(axis=1) @ weights().astype(np.float64)
    state, logits = np.zeros(len(CLASSES)), []
    for row in now:
        state = KEEP * state + row
        logits.append(state)
    return np.array(logits)


def test_streamed_answers_equal_those_of_the_whole_recording_trial_by_trial(
    toy: Bundle, folder: Path
) -> None:
    """A net stepped hop by hop through the pipeline answers every trial as the same net does offline."""
    for subject in ("S1", "S2", "S3"):
        session = session_of(toy, folder, subject)
        with OnnxRuntime().open(toy) as backend:
            played = play(toy, backend, session)
        logits = whole(toy, session)
        logs = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        times = (np.arange(len(logits)) + 1) * HOP / session.recording.info.sfreq
        expected = []
        for cue in (m for m in session.recording.markers if m.label != "rest"):
            rows = (times > cue.time + FROM_S + 0.01) & (times <= cue.time + AT_S + 0.01)
            expected.append(CLASSES[1 + int(logs[rows][:, 1:].mean(axis=0).argmax())] == cue.label)
        said = answers([played], CLASSES, "rest", Trials(from_s=FROM_S, at_s=AT_S))
        assert said.right.tolist() == expected


def test_a_recording_in_a_unit_far_too_large_says_so(toy: Bundle, folder: Path) -> None:
    """Its decisions are not valid, and its notes tell of the unit; in its own unit there is no such note."""
    session = session_of(toy, folder, "S1")
    loud = replace(session, recording=replace(session.recording, data=session.recording.data * 1000))
    with OnnxRuntime().open(toy) as backend:
        right, wrong = (play(toy, backend, one) for one in (session, loud))
    assert right.valid[20:].all()
    assert not wrong.valid[48:].any()  # three seconds: a step of an offset would be over by then
    assert not any("unit" in note for note in right.notes)
    assert any("--uv-per-count" in note and "too large" in note for note in wrong.notes)


@pytest.mark.parametrize(
    ("gain", "why"), [(1000.0, "8 channels too large in uV: the"), (0.0, "8 channels flat")]
)
def test_what_is_not_decided_on_is_no_mistake_of_a_decoder(
    toy: Bundle, folder: Path, tmp_path: Path, gain: float, why: str
) -> None:
    """It is left out of the score, and of an operating point, by name and with what is wrong."""
    people = shutil.copytree(folder, tmp_path / "people")
    spoiled = people / "S1" / "S1R1.npz"
    with np.load(spoiled) as file:
        arrays = dict(file)
    np.savez(spoiled, **{**arrays, "scale": arrays["scale"] * gain})
    for keep in (None, tmp_path / "kept", tmp_path / "kept"):
        one = evaluate(toy, people, keep=keep)
        assert list(one.skipped) == ["S1/S1R1"]
        assert f"decided on: {why}" in one.skipped["S1/S1R1"]
        assert len(one.played) == 5
    bundle = operate(toy.folder, people, tmp_path / "operated", ["S1", "S2"])
    told = bundle.manifest.provenance["operating"]
    assert (told["recordings"], told["commands"]) == (3, 18)
    assert any("S1/S1R1 left out" in note and why in note for note in told["notes"])


def test_words_of_other_names_are_told(toy: Bundle, folder: Path, run_writer: Writer, tmp_path: Path) -> None:
    """What asks for nothing that the bundle has is named, once: a word that should have been renamed."""
    assert not evaluate(toy, folder, ["S2"]).notes()
    renamed = Options(folder={"labels": {"left_fist": "clap"}})
    notes = evaluate(toy, folder, ["S2"], options=renamed).notes()
    assert notes == ["markers of other names ask for nothing here: clap; --labels OLD=NEW renames them"]


def test_what_is_large_for_a_while_leaves_the_unit_alone(toy: Bundle, folder: Path) -> None:
    """A wrong unit is wrong throughout: ten seconds out of 48 are an electrode's, and not decided on."""
    session = session_of(toy, folder, "S1")
    data = session.recording.data.copy()
    data[1600:3200] *= 1000
    with OnnxRuntime().open(toy) as backend:
        played = play(toy, backend, replace(session, recording=replace(session.recording, data=data)))
    assert not played.valid[160 + 48 : 320].any()
    assert not any("unit" in note for note in played.notes)


@pytest.mark.parametrize("size", [1, 7, 500])
def test_chunks_do_not_matter(toy: Bundle, folder: Path, size: int) -> None:
    """Played in chunks of any size, every hop is the same bit for bit."""
    session = session_of(toy, folder, "S1")
    with OnnxRuntime().open(toy) as backend:
        first, second = (play(toy, backend, session, chunk=n) for n in (size, 32))
    assert len(first) == len(session.recording.times) // HOP
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("missing", [1, 16, 17, 320])
def test_a_hole_is_what_it_is_in_a_run(toy: Bundle, tmp_path: Path, missing: int) -> None:
    """Bridged or begun anew behind, every decision is that of `bcistream run` on the file."""
    rng, onsets = np.random.default_rng(missing), [i + (i >= 3) * missing / 160 for i in range(6)]
    codes = [rng.normal(0, 20, (6, 160)).astype(np.int16) for _ in CHANNELS]
    path = write_edf(tmp_path / "holed.edf", codes, CHANNELS, onsets=onsets)
    recording = load_recording(path)
    assert recording.breaks == (480,)
    heard: list[Decision] = []
    config: dict[str, Any] = {"source": {"kind": "recording", "path": str(path)}, "bundle": str(toy.folder)}
    config["decision"] = {"smoothing_s": 0.0}
    run_config(parse_run(config, "test"), extra=Observer(heard.append))
    with OnnxRuntime().open(toy) as backend:
        played = play(toy, backend, Session("S", "holed", recording, ""))
    np.testing.assert_allclose(played.times, [one.time for one in heard], atol=1e-6)
    assert played.valid.tolist() == [one.valid for one in heard]
    said = np.array([one.probabilities for one in heard])[played.valid]
    np.testing.assert_allclose(np.exp(played.log_probs[played.valid]), said, atol=1e-5)
    bridged = len(heard) == (960 + missing) // HOP
    assert bridged == (missing <= 16)


def not_again(*_: object) -> Played:
    raise AssertionError("played again")


def test_what_is_kept_scores_as_what_was_played(toy: Bundle, folder: Path, tmp_path: Path) -> None:
    """A second run plays nothing and says the same, also of fewer people; what is damaged is made again."""
    fresh = evaluate(toy, folder, keep=tmp_path)

    again = evaluate_all([toy], folder, keep=tmp_path, playing=not_again)[0]
    assert again.scores() == fresh.scores()
    some = evaluate_all([toy], folder, ["S2"], keep=tmp_path, playing=not_again)[0]
    assert some.scores().per_subject["S2"] == fresh.scores().per_subject["S2"]
    session = session_of(toy, folder, "S1")
    path = kept_as(tmp_path, toy, fresh.task, content_of(session.recording))
    whole_file = path.read_bytes()
    for damaged in (b"PK nothing", whole_file[:-100], b""):
        path.write_bytes(damaged)
        mended = evaluate(toy, folder, keep=tmp_path)
        assert (mended.skipped, mended.scores()) == ({}, fresh.scores())
    assert evaluate_all([toy], folder, keep=tmp_path, playing=not_again)[0].scores() == fresh.scores()


@pytest.mark.parametrize("n_hops", [0, 1])
def test_a_recording_shorter_than_two_hops_is_no_mistake(
    toy: Bundle, run_writer: Writer, tmp_path: Path, n_hops: int
) -> None:
    """It is played, kept and decided anew as the decision stage did, at the bundle's own pace."""
    samples = n_hops * HOP + 6
    path = tmp_path / "people" / "S" / "a.npz"
    run_writer(path, seed=1, n_trials=1, cut_s=8 - samples / 160, channels=CHANNELS)
    (fresh,), (played,) = (evaluate(toy, path.parent.parent, keep=tmp_path).played for _ in range(2))
    assert (len(played), played.hop_s) == (n_hops, HOP / 160)
    settings = toy.readout.decision
    assert decide(played, settings, CLASSES, "rest").tolist() == played.labels.tolist()
    assert (fresh.hop_s, answers([fresh], CLASSES, "rest", Trials()).n_cut) == (played.hop_s, 1)


def test_other_settings_are_other_files(toy: Bundle, folder: Path, tmp_path: Path) -> None:
    """What was kept is not taken for a bundle with other decisions, or for channels under other names."""
    task = task_of(toy, folder)
    renamed = task_of(toy, folder, Options(folder={"channels": {"Oz": "Pz"}}))
    settings = {"classes": list(CLASSES), "idle": "rest", "decision": {"threshold": 0.8}}
    other = bundle_at(tmp_path / "other", readout=settings)
    paths = {kept_as(tmp_path, *pair, "0" * 16) for pair in ((toy, task), (toy, renamed), (other, task))}
    assert len(paths) == 3


def test_what_was_kept_and_damaged_is_told(toy: Bundle, folder: Path, tmp_path: Path) -> None:
    """Whichever way its bits no longer unpack: which file it is, and that it may be deleted."""
    played = evaluate(toy, folder, keep=tmp_path).played[0]
    played.save(tmp_path / "one.npz")
    spoil(tmp_path / "one.npz", "about.npy")
    with pytest.raises(RecordingError, match=r"one\.npz is no played recording .* delete it"):
        Played.load(tmp_path / "one.npz")


@pytest.mark.parametrize("key", ["ch_names", "scale", "sfreq"])
def test_what_was_corrected_is_played_again(toy: Bundle, folder: Path, tmp_path: Path, key: str) -> None:
    """The same stored numbers under other names, at another scale or rate, are another recording."""
    path = Path(shutil.copytree(folder / "S1", tmp_path / "people" / "S1")) / "S1R1.npz"
    before = {one.name: one.log_probs for one in evaluate(toy, tmp_path / "people", keep=tmp_path).played}
    with np.load(path) as file:
        content = dict(file)
    changed = content[key][::-1] if key == "ch_names" else 1.25 * content[key]
    np.savez(path, **content | {key: changed})
    after = {one.name: one.log_probs for one in evaluate(toy, tmp_path / "people", keep=tmp_path).played}
    assert np.array_equal(before["S1R2"], after["S1R2"])
    assert not np.array_equal(before["S1R1"], after["S1R1"])


def test_markers_that_were_corrected_are_asked_of_what_is_kept(
    toy: Bundle, folder: Path, tmp_path: Path
) -> None:
    """The samples, and what they were taken for, are the same: nothing is played, and all is asked anew."""
    path = Path(shutil.copytree(folder / "S1", tmp_path / "people" / "S1")) / "S1R1.npz"
    before = evaluate(toy, tmp_path / "people", keep=tmp_path).played[0]
    with np.load(path) as file:
        content = dict(file)
    content["events"][:, 2] = (3 - content["events"][:, 2]) % 3  # left for right
    np.savez(path, **content)
    after = evaluate_all([toy], tmp_path / "people", keep=tmp_path, playing=not_again)[0].played[0]
    turned = {"rest": "rest", "left_fist": "right_fist", "right_fist": "left_fist"}
    assert [one.label for one in after.markers] == [turned[one.label] for one in before.markers]
    np.testing.assert_array_equal(after.log_probs, before.log_probs)


def test_every_uncut_trial_is_answered_and_counted(toy: Bundle, folder: Path) -> None:
    """The figures are those of the subjects' trials, per subject and together."""
    one = evaluate(toy, folder, ["S3"])
    report = document_of(one, one.scores())
    assert report["n_trials"] == report["n"] == 12
    assert report["n_recordings"] == 2
    assert report["per_subject"]["S3"]["accuracy"] == report["accuracy"]
    assert report["subjects"]["worst"] == report["accuracy"]
    assert {"hits", "false_activations_per_min", "hop_balanced_accuracy", "nmcc"} <= set(report["idle"])
    json.dumps(report)


def test_recordings_trained_on_are_left_out_whatever_they_are_called(
    toy: Bundle, folder: Path, tmp_path: Path
) -> None:
    """A training subject under another name is recognised by its samples; alone it is nothing to score."""
    known = [
        read().fingerprint
        for person in find_people(task_of(toy, folder), ["S1-S2"])
        for _, read in openers(task_of(toy, folder), person)
    ]
    trained = bundle_at(tmp_path / "trained", provenance={"fingerprints": {"train": known}})
    for source, name in (("S1", "Z1"), ("S2", "Z2"), ("S3", "Z3")):
        shutil.copytree(folder / source, tmp_path / "people" / name)
    one = evaluate(trained, tmp_path / "people")
    assert one.excluded == ["Z1/S1R1", "Z1/S1R2", "Z2/S2R1", "Z2/S2R2"]
    assert list(one.scores().per_subject) == ["Z3"]
    with pytest.raises(RecordingError, match="2 recordings had a part in training"):
        evaluate(trained, tmp_path / "people", ["Z1"])


def test_what_cannot_be_scored_is_said(toy: Bundle, run_writer: Writer, tmp_path: Path) -> None:
    """A cut trial, another task, too few channels and a damaged file are counted or named with a reason."""
    run_writer(tmp_path / "S" / "a.npz", seed=50, cut_s=2.0, channels=CHANNELS)
    run_writer(tmp_path / "S" / "b.npz", seed=51, task="execution", channels=CHANNELS)
    run_writer(tmp_path / "S" / "c.npz", seed=52, channels=("C3", "C4"))
    (tmp_path / "S" / "d.npz").write_bytes(b"PK nothing")
    one = evaluate(toy, tmp_path)
    assert (one.scores().n, one.scores().n_cut) == (5, 1)
    assert set(one.skipped) == {"S/b", "S/c", "S/d"}
    assert "execution" in one.skipped["S/b"]
    (person,) = find_people(one.task)
    looked = {each.where: each for each in look(toy, one.task, person, set())}
    assert [where for where in looked if looked[where].session is not None] == ["S/a"]
    assert {where: looked[where].why for where in one.skipped} == one.skipped
    assert "2 channels" in one.skipped["S/c"]


def test_other_rates_and_montages_are_adapted_and_said(
    toy: Bundle, run_writer: Writer, tmp_path: Path
) -> None:
    """A 128-Hz recording with more channels in another order is scored in full, and the report says how."""
    run_writer(tmp_path / "S" / "a.npz", seed=60, sfreq=128.0, channels=("Oz", *CHANNELS[::-1], "Fpz"))
    one = evaluate(toy, tmp_path)
    assert one.scores().n + one.scores().n_cut == 6
    assert any("128" in note for note in one.played[0].notes)


def test_subjects_are_told_apart_by_pattern_then_by_what_files_say(
    toy: Bundle, run_writer: Writer, tmp_path: Path
) -> None:
    """A pattern that fits names the subjects; else the files do, in whatever folder they lie."""
    for name, subject in (("P1_a", "anna"), ("P1_b", "anna"), ("P2_a", "bert")):
        path = run_writer(tmp_path / f"{name}.npz", seed=len(name), channels=CHANNELS)
        with np.load(path) as file:
            content = {key: file[key] for key in file.files}
        np.savez(path, **{**content, "meta": json.dumps({"subject": subject})})
    names = [one.name for one in find_people(task_of(toy, tmp_path))]
    assert names == ["anna", "bert"]
    by_name = task_of(toy, tmp_path, Options(folder={"subject": r"P\d"}))
    assert [one.name for one in find_people(by_name)] == ["P1", "P2"]


def test_a_bundles_own_task_is_the_default(toy: Bundle, tmp_path: Path, folder: Path) -> None:
    """Protocol and folder come from the provenance, under what the user says; no file fits, no folder."""
    task = {
        "protocol": {"kind": "windows", "from_s": 1.0, "window_s": 2.0},
        "folder": {"subject": "S\\d", "hold": 5},
        "stype": "EEG",
    }
    said = bundle_at(tmp_path / "said", provenance={"task": task})
    own = task_of(said, folder)
    assert own.protocol.model_dump(exclude={"live", "smoothing_s"}) == task["protocol"]
    assert (own.folder.subject, own.folder.hold) == ("S\\d", 5)
    other = task_of(said, folder, Options(folder={"hold": 1}, protocol={"window_s": 0.5}))
    assert (other.folder.hold, other.protocol.model_dump()["window_s"]) == (1, 0.5)
    (tmp_path / "strange").mkdir()
    assert task_of(said, tmp_path / "strange").folder.hold == 1


def test_a_bundle_that_decides_nothing_is_refused(tmp_path: Path, folder: Path) -> None:
    """A bundle without classes is refused in words that say what it is for."""
    manifest = toy_manifest(toy_graph())
    manifest.pop("readout")
    features = load(write_bundle(tmp_path, {**manifest, "features": {"latent": "logits"}}, toy_graph()))
    with pytest.raises(BundleError, match="latents"):
        evaluate(features, folder)


def test_the_command_writes_tables_and_pictures_of_several_bundles(
    toy: Bundle, folder: Path, tmp_path: Path
) -> None:
    """Two bundles in one run are compared over subjects; a second run goes on from what is there."""
    pytest.importorskip("matplotlib")
    other = bundle_at(tmp_path / "other", version="2")
    words = ["evaluate", str(toy.folder), str(other.folder), "--data", str(folder)]
    words += ["--output", str(tmp_path / "out"), "--json"]
    outputs = [CliRunner().invoke(app, words) for _ in range(2)]
    assert [one.exit_code for one in outputs] == [0, 0]
    first, second = (json.loads(one.stdout) for one in outputs)
    assert first["comparisons"] == second["comparisons"]
    assert first["comparisons"][0]["difference"] == 0
    assert [one["accuracy"] for one in first["evaluations"]] == [
        one["accuracy"] for one in second["evaluations"]
    ]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"evaluation.json", "evaluation.md", "time_after_cue.png", "hits_false.png"} <= written
    assert "| S1 |" in (tmp_path / "out" / "evaluation.md").read_text()
