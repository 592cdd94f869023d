"""The head of a bundle is found from what it puts out, and a calibration of it is scored on the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from made_files import Killed, half_written
from toy_bundle import CHANNELS, CLASSES, write_bundle
from toy_head import head, headed_graph, headed_manifest

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.bundle import Bundle, load
from engine.head import source_head
from engine.refit import Examples
from offline import head_gains, operate
from offline.commands.operate import _gained
from offline.evaluate.calibrated import _Start, calibrated, row_of
from offline.evaluate.played import play
from offline.evaluate.protocol import Trials
from offline.evaluate.recordings import protocol_of
from offline.head_gains import _Person, _taken, measure
from offline.head_statistics import MAX_PEOPLE, Person, attach, solved
from offline.heard import asked_since, heard
from offline.operate import operate_played
from offline.probe.tasks import Session
from streamer.errors import BundleError, ConfigError, EndOfStream, RecordingError
from streamer.sources.recording import Recording
from streamer.sources.synthetic import Config as Synthetic
from streamer.types import Marker


@cache
def session(seed: int, n_trials: int = 10) -> Session:
    """A recording of a simulated subject: a trial each 6 s, rest between."""
    config = Synthetic(
        seed=seed, sfreq=160.0, ch_names=CHANNELS, n_trials=n_trials, trial_s=4.0, rest_s=2.0, speed="max"
    )
    parts = []
    with config.open() as source:
        try:
            while (chunk := source.read(0.0)) is not None:
                parts.append(chunk.data)
        except EndOfStream:
            pass
        data = np.concatenate(parts)
        recording = Recording(
            source.info, data, np.arange(len(data)) / 160.0, markers=tuple(source.markers())
        )
    return Session(f"subject{seed}", f"run{seed}", recording, str(seed))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The toy with a latent, its head found from two simulated people."""
    graph = headed_graph()
    folder = write_bundle(tmp_path_factory.mktemp("heads") / "toy", headed_manifest(graph), graph)
    return attach(folder, [session(1), session(2)])


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> Iterator[OnnxRuntimeBackend]:
    with OnnxRuntime().open(bundle) as opened:
        yield opened


def test_the_head_is_the_graphs_last_layer(bundle: Bundle) -> None:
    """Weight and bias are recovered from latents and logits; the statistics are of the people played."""
    found = source_head(load(bundle.folder))
    np.testing.assert_allclose(found.head.weight, head().weight, atol=1e-4)
    np.testing.assert_allclose(found.head.bias, head().bias, atol=1e-3)
    assert found.n_source == 2
    assert np.linalg.eigvalsh(found.covariance).min() > 0


def test_a_model_without_a_linear_end_is_refused() -> None:
    """Logits that no linear map of the latent gives are said to be so, and how far off they are."""
    latents = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    bent = Person(latents, np.tanh(latents[:, :2]), np.zeros(500, dtype=np.int64))
    with pytest.raises(BundleError, match="ends in a linear layer"):
        solved([bent], "bent 1")


def test_latents_that_lack_directions_are_no_obstacle() -> None:
    """A unit that is always silent leaves the head exact on all that occurs."""
    latents = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    latents[:, 2] = 0
    logits = latents @ np.array([[1, 2], [3, 4], [5, 6], [7, 8]], dtype=np.float32) + 1
    found = solved([Person(latents, logits, np.zeros(500, dtype=np.int64))], "silent 1")
    np.testing.assert_allclose(found.logits(latents), logits, atol=1e-4)


def test_a_class_without_a_trial_is_refused(tmp_path: Path) -> None:
    """Without it there is no prior for its row."""
    graph = headed_graph()
    manifest = headed_manifest(graph)
    manifest["readout"]["classes"] = [*CLASSES[:2], "foot"]
    folder = write_bundle(tmp_path / "toy", manifest, graph)
    with pytest.raises(RecordingError, match="No trial of foot"):
        attach(folder, [session(1)])


def test_people_are_taken_evenly() -> None:
    """Of many people no more than the limit are played, from all over the list."""
    from offline.head_statistics import _some

    many = [Session(f"S{k:03d}", "r", session(1).recording, "") for k in range(60) for _ in range(2)]
    names = [one.subject for one in _some(many, MAX_PEOPLE)]
    assert len(names) <= 2 * MAX_PEOPLE
    assert names[:2] == ["S000", "S000"]
    assert names[-1] > "S050"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The toy, with what a refit gained two people whom it was not made from."""
    graph = headed_graph()
    folder = write_bundle(tmp_path_factory.mktemp("gains") / "toy", headed_manifest(graph), graph)
    return attach(folder, [session(1), session(2)], [session(5), session(6)])


def test_interrupted_while_it_is_put_in_a_head_leaves_the_old_one(
    measured: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the two files that change neither is there without the other."""
    folder = shutil.copytree(measured.folder, tmp_path / "toy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(Path, "write_bytes", half_written)
    with pytest.raises(Killed):
        attach(folder, [session(1), session(3)])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_others_gain_is_in_the_bundle(measured: Bundle) -> None:
    """As many rows as the people held out have trials for, with what each of the two gained, in points."""
    table = source_head(load(measured.folder)).gains
    assert [row.trials for row in table] == [2, 4]  # a trial of each of three classes is too few to refit
    for row in table:
        assert row.n == 2
        assert list(row.points) == sorted(row.points)
    with OnnxRuntime().open(measured) as backend:
        people = {str(n): [heard(measured, backend, session(n))] for n in (5, 6)}
    assert table == measure(measured, source_head(measured), people, protocol_of(measured))


def test_what_others_gain_is_of_the_temperature_that_is_used(
    measured: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operated to another temperature, a bundle tells gains measured at that one, or none."""
    monkeypatch.setattr(head_gains, "strength_of", lambda _answer: 3.0)  # far enough to change an answer
    held_out, cells = [session(5), session(6)], tmp_path / "cells"
    cells.mkdir()
    with OnnxRuntime().open(measured) as backend:
        for number, one in enumerate(held_out):
            play(measured, backend, one).save(cells / f"{number}.npz")
    (cells / "cell.json").write_text('{"seed": 0, "temperature": 9.0}')
    without = operate_played(measured.folder, cells, tmp_path / "without")
    assert source_head(without).gains == ()
    monkeypatch.setattr(operate, "_sessions", lambda *_: (held_out, {}))
    anew = source_head(operate_played(measured.folder, cells, tmp_path / "anew", data=tmp_path))
    with OnnxRuntime().open(without) as backend:
        people = {one.subject: [heard(without, backend, one)] for one in held_out}
    assert anew.gains == measure(without, source_head(without), people, protocol_of(without))
    with OnnxRuntime().open(measured) as backend:
        people = {one.subject: [heard(measured, backend, one)] for one in held_out}
    assert anew.gains != measure(measured, source_head(measured), people, protocol_of(measured))


def test_what_others_gain_is_of_every_net_of_the_recipe(
    measured: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the nets of a benchmark everybody counts once, asked of a net that does not know them."""
    for fold in (0, 1, 2):
        shutil.copytree(measured.folder, tmp_path / "models" / f"seed0_fold{fold}_x" / "bundle")
    people = [[session(5), session(6), session(7)], [session(7), session(8)], []]  # one alone, and nobody
    folds = iter(people)
    monkeypatch.setattr(operate, "_unknown", lambda *_: next(folds))
    cells = tmp_path / "cells"
    cells.mkdir()
    with OnnxRuntime().open(measured) as backend:
        play(measured, backend, session(5)).save(cells / "0.npz")
    temperature = measured.readout.temperature
    (cells / "cell.json").write_text(json.dumps({"seed": 0, "temperature": temperature}))
    told = {"data": tmp_path, "nets": tmp_path / "models"}
    table = source_head(operate_played(measured.folder, cells, tmp_path / "new", **told)).gains
    everybody = [session(seed) for seed in (5, 6, 7, 8)]
    with OnnxRuntime().open(measured) as backend:
        asked = {one.subject: [heard(measured, backend, one)] for one in everybody}
    assert table == measure(measured, source_head(measured), asked, protocol_of(measured))
    shown = _gained(load(tmp_path / "new"))
    assert [(row["trials"], row["people"]) for row in shown] == [(row.trials, row.n) for row in table]
    assert [row["worst"] for row in shown] == [min(row.points) for row in table]
    monkeypatch.setattr(operate, "_unknown", lambda *_: [])
    with pytest.raises(RecordingError, match="know everybody"):
        operate_played(measured.folder, cells, tmp_path / "new", **told)
    shutil.copytree(measured.folder, tmp_path / "models" / "seed0_fold1_y" / "bundle")
    with pytest.raises(ConfigError, match="several nets of seed0_fold1"):
        operate_played(measured.folder, cells, tmp_path / "new", **told)
    with pytest.raises(ConfigError, match="holds no nets"):
        operate_played(measured.folder, cells, tmp_path / "new", data=tmp_path, nets=cells)


def test_the_first_trials_calibrate_and_the_rest_is_scored() -> None:
    """Of each class the first trials are taken, and what is scored begins where the last of them ends."""
    examples = Examples(
        np.arange(7.0)[:, None], np.array([0, 0, 1, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 3, 4, 6])
    )
    wanted, stops = np.array([2, 1]), np.array([10.0, 20, 30, 40, 50, 60, 70])
    taken, cut = _taken(examples, stops, wanted)
    assert taken.trials.tolist() == [0, 1, 2]
    assert (cut, wanted.tolist()) == (30.0, [0, 0])
    more = np.array([3, 4])
    taken, cut = _taken(examples, stops, more)
    assert taken.trials.tolist() == [0, 1, 2, 3, 3, 4, 6]
    assert (cut, more.tolist()) == (np.inf, [0, 1])


def test_no_two_trials_share_a_number(bundle: Bundle, backend: OnnxRuntimeBackend) -> None:
    """From whichever recording a calibration begins: trials that share one weigh half, across classes."""
    short, long = (heard(bundle, backend, session(5 + n, n)) for n in (12, 24))
    person = _Person(bundle, source_head(bundle), [short, long], Trials())
    chosen = person._first([1, 0], 14)
    assert chosen is not None
    examples = chosen[0]
    by_number = {
        number: set(examples.labels[examples.trials == number]) for number in np.unique(examples.trials)
    }
    assert len(by_number) == 3 * 14
    assert all(len(classes) == 1 for classes in by_number.values())


def test_a_person_without_a_rest_has_no_gain(bundle: Bundle, backend: OnnxRuntimeBackend) -> None:
    """Where the trials are used up nothing is left to score, and one person alone makes no table."""
    some = [heard(bundle, backend, session(5))]
    assert measure(bundle, source_head(bundle), {"a": some, "b": some}, Trials())
    assert measure(bundle, source_head(bundle), {"a": some}, Trials()) == ()
    short = [heard(bundle, backend, session(7, 2))]
    assert measure(bundle, source_head(bundle), {"a": short, "b": short}, Trials()) == ()


def test_one_course_serves_both_heads(bundle: Bundle, backend: OnnxRuntimeBackend) -> None:
    """What is put together from the latents is what the pipeline says with that calibration, labels too."""
    made = calibrated(bundle, backend, [session(3, 20)], seconds=60.0)
    assert made.calibration is not None
    turned = made.calibration.model_copy(
        update={"weight": tuple(map(tuple, -head().weight)), "bias": tuple(head().bias)}
    )
    assert turned.head is not None
    one = heard(bundle, backend, session(3, 20))
    for calibration, other in ((None, None), (turned, turned.head)):
        played = play(bundle, backend, session(3, 20), calibration=calibration)
        mine = one.played(other, bundle.readout.temperature)
        np.testing.assert_array_equal(played.log_probs, mine.log_probs)
        np.testing.assert_array_equal(played.valid, mine.valid)
        assert (played.times.tolist(), played.markers) == (mine.times.tolist(), mine.markers)
    np.testing.assert_array_equal(made.zero_shot[0].labels, play(bundle, backend, session(3, 20)).labels)


def test_the_rest_is_scored_and_nothing_else(bundle: Bundle, backend: OnnxRuntimeBackend) -> None:
    """The trials of the first minute are out of both; what is left is the same signal, decided twice."""
    made = calibrated(bundle, backend, [session(3, 20)], seconds=60.0)
    assert made.calibration is not None
    assert sum(made.calibration.made_of.trials.values()) <= 20
    (before,), (after,) = made.zero_shot, made.refitted
    assert before.markers == after.markers
    assert min(marker.time for marker in before.markers) >= 60.0
    np.testing.assert_array_equal(before.times, after.times)
    if made.calibration.weight is not None:
        assert not np.array_equal(before.log_probs, after.log_probs)


def test_of_a_stretch_that_calibration_ends_in_the_remainder_is_asked_for() -> None:
    """Cued trials that began before are left out; a state that lasts is asked for from there to its end."""
    markers = [Marker(0.0, "rest", 100.0), Marker(100.0, "task"), Marker(130.0, "rest", 30.0)]
    kept = [(m.time, m.label, m.duration) for m in asked_since(markers, 60.0, cued=False)]
    assert kept == [(60.0, "rest", 40.0), (100.0, "task", 0.0), (130.0, "rest", 30.0)]
    assert [m.time for m in asked_since(markers, 60.0, cued=True)] == [100.0, 130.0]
    late = [(m.time, m.label) for m in asked_since(markers, 110.0, cued=False)]
    assert late == [(110.0, "task"), (130.0, "rest")], "a marker without an end lasts until the next"
    assert [m.time for m in asked_since(markers, 130.0, cued=False)] == [130.0]
    assert list(asked_since(markers[:1], 100.0, cued=False)) == []


def test_a_calibration_goes_on_in_the_next_recording(bundle: Bundle, backend: OnnxRuntimeBackend) -> None:
    """Where the first recording is too short, the second gives the other trials; the rest is scored."""
    sessions = [session(3, 5), session(4, 10)]
    made = calibrated(bundle, backend, sessions, trials=7, classes=("left_fist", "right_fist"))
    assert made.calibration is not None
    assert sum(made.calibration.made_of.trials.values()) == 7
    (rest,) = made.zero_shot
    assert rest.name == "run4"
    assert len([m for m in rest.markers if m.label != "rest"]) == 8


def test_what_one_recording_leaves_of_the_time_the_next_one_gives(
    bundle: Bundle, backend: OnnxRuntimeBackend
) -> None:
    """Of 39 s the first recording has 32: seven seconds of the second calibrate, and the rest is scored."""
    made = calibrated(bundle, backend, [session(3, 5), session(4, 10)], seconds=39.0)
    assert made.calibration is not None
    assert made.calibration.made_of.trials == {"rest": 6, "left_fist": 3, "right_fist": 3}
    (rest,) = made.zero_shot
    assert [m.time for m in rest.markers] == [m.time for m in session(4, 10).recording.markers if m.time > 7]


def test_trials_of_several_recordings_stay_apart(bundle: Bundle, backend: OnnxRuntimeBackend) -> None:
    """Each is a trial of its own, in whichever recording, and where not all classes are used, too."""
    recordings = [heard(bundle, backend, one) for one in (session(3, 5), session(4, 10))]
    for trials, classes in ((25, None), (12, ("left_fist", "right_fist"))):
        found = _Start(bundle, recordings, None, trials, classes, 0.0).found()
        assert sum(found.trials.values()) == len(np.unique(found.examples.trials)) == trials


def test_who_gives_too_little_keeps_the_head(bundle: Bundle, backend: OnnxRuntimeBackend) -> None:
    """A person without enough trials is scored with the bundle's head both times, and the report says why."""
    made = calibrated(bundle, backend, [session(3, 10)], seconds=6.0, classes=("left_fist",))
    row = row_of(made, bundle, Trials())
    assert row["zero_shot"] == row["refitted"]
    assert "at least 4" in row["because"]
    assert row["gain_points"] == 0.0


def test_what_calibrates_is_never_scored(bundle: Bundle, backend: OnnxRuntimeBackend) -> None:
    """Of somebody whose trials all went into the head nothing is left to score, of others there is."""
    one = heard(bundle, backend, session(5, 20))
    seen, stop = dict.fromkeys(CLASSES, 0), 0
    while min(seen.values()) < 2:  # until there are two of each class, the last of them just now
        seen[one.markers[stop].label] += 1
        stop += 1
    assert one.markers[stop:]
    used_up = [replace(one, markers=one.markers[:stop])]
    assert measure(bundle, source_head(bundle), {"a": used_up, "b": used_up}, Trials()) == ()
    (row, *_) = measure(bundle, source_head(bundle), {"a": [one], "b": [one]}, Trials())
    assert (row.trials, row.n) == (2, 2)


def test_everybody_is_calibrated_from_the_start_of_each_recording(
    bundle: Bundle, backend: OnnxRuntimeBackend
) -> None:
    """The gain is the mean over where one may begin: which recording is called the first changes nothing."""
    some = [heard(bundle, backend, one) for one in (session(4), session(9))]
    one, other = (_Person(bundle, source_head(bundle), each, Trials()) for each in (some, some[::-1]))
    each = [one._gain_from(start, 4) for start in (0, 1)]
    assert each == [other._gain_from(start, 4) for start in (1, 0)]
    assert each[0] != each[1]
    assert one.gain(4) == other.gain(4) == np.mean(each)
