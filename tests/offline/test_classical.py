"""Classical decoders, played like bundles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyriemann")

from engine.manifest import InputContract
from offline.benchmark import people
from offline.benchmark.asked import asked
from offline.benchmark.classical import FLOOR, Decoder, train_decoder
from offline.benchmark.hops import behind, hops_of
from offline.benchmark.memo import Memo
from offline.benchmark.people import Fold, Recordings
from offline.benchmark.readers import HudginsLda
from offline.benchmark.recipe import Classical, Task
from offline.benchmark.standardise import Standard, running
from offline.evaluate.decide import decide
from offline.evaluate.scores import score
from offline.probe.tasks import Session
from streamer.errors import ConfigError

CHANNELS = ["FC3", "FCz", "FC4", "C3", "Cz", "C4", "CP3", "CPz", "CP4"]
BAND = {"kind": "bandpass", "low": 8.0, "high": 30.0, "order": 2}
ALIGN = {"kind": "align"}
FOLD = Fold(0, ("P0", "P1", "P2"), ("P3",), ("P4",))
READERS: dict[str, dict[str, Any]] = {
    "csp_lda": {"reader": {"kind": "csp_lda"}, "dsp": [BAND, ALIGN]},
    "tangent_space": {"reader": {"kind": "tangent_space"}, "dsp": [BAND, ALIGN]},
    "mdm": {"reader": {"kind": "mdm"}, "dsp": [BAND]},
    "band_power": {"reader": {"kind": "band_power", "bands": [[8, 13], [13, 30]]}, "dsp": [BAND], "past": 1},
    "hudgins_lda": {"reader": {"kind": "hudgins_lda"}, "dsp": [BAND]},
    "log_rms_lda": {"reader": {"kind": "log_rms_lda"}, "dsp": [BAND], "standardise_s": 20.0},
}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, run_writer: Callable[..., Path]) -> Task:
    """Five people with a run each."""
    folder = tmp_path_factory.mktemp("people")
    for number in range(5):
        run_writer(folder / f"P{number}" / f"P{number}R1.npz", seed=number, n_trials=4)
    return Task.model_validate(
        {
            "folder": {"path": folder},
            "classes": ["rest", "left_fist", "right_fist"],
            "idle": "rest",
            "ch_names": CHANNELS,
            "protocol": {"kind": "trials"},
        }
    )


@pytest.fixture(scope="module")
def recordings(task: Task) -> Recordings:
    return Recordings(task.folder, task.stype)


@pytest.fixture(scope="module", params=list(READERS))
def decoder(request: pytest.FixtureRequest, task: Task, recordings: Recordings) -> Decoder:
    """Each reader, trained."""
    fixed = {"kind": "classical", "name": request.param, "sfreq": 160, "window_s": 2.5, "hop_s": 0.5}
    settings = Classical.model_validate(fixed | READERS[request.param])
    return train_decoder(settings, task, FOLD, recordings, Memo(100))


def changed(session: Session, first: int) -> Session:
    """Return the recording with other samples from this one on."""
    data = session.recording.data.copy()
    data[first:] = 3 * data[first:][::-1]
    return replace(session, fingerprint="other", recording=replace(session.recording, data=data))


def test_any_chunks_give_the_same(decoder: Decoder, recordings: Recordings) -> None:
    """Fed sample by seven samples or all at once, a decoder says the same to the bit."""
    (session,) = recordings.sessions("P4")
    whole = decoder.play(session, chunk=len(session.recording.data))
    pieces = decoder.play(session, chunk=7)
    np.testing.assert_array_equal(pieces.log_probs, whole.log_probs)
    np.testing.assert_array_equal(pieces.times, whole.times)
    np.testing.assert_array_equal(pieces.labels, whole.labels)


def test_the_future_changes_nothing(decoder: Decoder, recordings: Recordings) -> None:
    """What comes later leaves every answer before it as it was."""
    (session,) = recordings.sessions("P4")
    first = 2003
    one, other = decoder.play(session), decoder.play(changed(session, first))
    before = one.times < first / 160
    np.testing.assert_allclose(one.log_probs[before], other.log_probs[before], rtol=1e-6)
    assert not np.allclose(one.log_probs[~before], other.log_probs[~before])


def test_an_answer_is_the_classifiers_on_that_window(
    task: Task, recordings: Recordings, run_writer: Callable[..., Path]
) -> None:
    """At each hop the log-probabilities are scikit-learn's for the features of the last window alone."""
    fixed = {"kind": "classical", "name": "mdm", "sfreq": 160, "window_s": 2.5, "hop_s": 0.5}
    settings = Classical.model_validate(fixed | READERS["mdm"])
    decoder = train_decoder(settings, task, FOLD, recordings)
    (session,) = recordings.sessions("P4")
    from streamer.dsp.bandpass import Config as Bandpass
    from streamer.types import make_chunk

    recording = session.recording
    step = Bandpass(low=8.0, high=30.0, order=2).build(recording.info)
    signal = step(make_chunk(recording.data, 0, recording.times)).data
    played = decoder.play(session)
    for hop in (4, 10, 28):
        stop = (hop + 1) * 80
        features = settings.reader.features(signal[stop - 400 : stop].T[None], 160.0)
        sure = np.maximum(decoder.classifier.predict_proba(features)[0], FLOOR)
        expected = np.log(sure) / decoder.temperature
        expected -= np.log(np.exp(expected).sum())
        np.testing.assert_allclose(played.log_probs[hop], expected, atol=1e-4)
        assert played.times[hop] == pytest.approx(recording.times[stop - 1])


def test_a_plain_lateralised_rhythm_is_found(decoder: Decoder, recordings: Recordings, task: Task) -> None:
    """Where one side's rhythm is plainly weaker, a spatial decoder finds it in a new person."""
    if decoder.settings.name in ("hudgins_lda", "mdm"):
        pytest.skip("levels differ between people, and it has nothing against that")
    played = [decoder.play(session) for session in recordings.sessions("P4")]
    protocol = task.protocol.model_copy(update={"answer": "last"})
    assert (score(played, task.classes, task.idle, protocol).accuracy or 0.0) >= 0.75


def test_nobody_tested_or_validated_on_is_learned_from(task: Task, recordings: Recordings) -> None:
    """The classifier and the prior hang on the training people only, the temperature also on the others."""
    fixed = {"kind": "classical", "name": "x", "sfreq": 160, "window_s": 2.5, "hop_s": 0.5}
    settings = Classical.model_validate(fixed | READERS["csp_lda"])
    one = train_decoder(settings, task, FOLD, recordings)
    other = train_decoder(settings, task, Fold(0, FOLD.train, ("P4",), ("P3",)), recordings)
    (session,) = recordings.sessions("P3")
    assert one.dsp == other.dsp
    same = one.play(session).log_probs * one.temperature, other.play(session).log_probs * other.temperature
    np.testing.assert_allclose(*(x - x.mean(axis=1, keepdims=True) for x in same), atol=1e-3)


def test_the_temperature_is_that_of_who_validates(task: Task, recordings: Recordings) -> None:
    """Whose sides are exchanged is answered wrongly: who validates so makes a decoder much less sure."""
    fixed = {"kind": "classical", "name": "x", "sfreq": 160, "window_s": 2.5, "hop_s": 0.5}
    settings = Classical.model_validate(fixed | READERS["csp_lda"])
    other = {"left_fist": "right_fist", "right_fist": "left_fist", "rest": "rest"}

    def exchanged(one: Session) -> list[Session]:
        markers = tuple(replace(mark, label=other[mark.label]) for mark in one.recording.markers)
        return [replace(one, recording=replace(one.recording, markers=markers))]

    altered: Any = Altered(recordings, exchanged, "P3")
    right, wrong = (train_decoder(settings, task, FOLD, some).temperature for some in (recordings, altered))
    assert wrong > 2 * right


def test_features_are_standardised_from_the_training_people(task: Task, recordings: Recordings) -> None:
    """Where the standardisation starts is what they are like, whatever those tested and validated on are."""
    fixed = {"kind": "classical", "name": "x", "sfreq": 160, "window_s": 2.5, "hop_s": 0.5}
    settings = Classical.model_validate(fixed | READERS["log_rms_lda"])

    def start(*louder: str) -> Standard:
        def alter(one: Session) -> list[Session]:
            return [replace(one, recording=replace(one.recording, data=5 * one.recording.data))]

        altered: Any = Altered(recordings, alter, *louder)
        found = train_decoder(settings, task, FOLD, altered).standard
        assert found is not None
        return found

    plain = start()
    np.testing.assert_array_equal(start("P3", "P4").mean, plain.mean)
    assert not np.allclose(start("P1").mean, plain.mean, atol=0.1)


def test_a_hole_starts_everything_afresh(recordings: Recordings, task: Task) -> None:
    """Behind a hole, windows hold nothing of before it, and hops are not warm until they are full."""
    (session,) = recordings.sessions("P4")
    whole = session.recording
    times = whole.times.copy()
    times[1000:] += 5.0
    holed = replace(session, recording=replace(whole, times=times, breaks=(1000,)))
    contract = InputContract(sfreq=160, unit="uV", ch_names=tuple(CHANNELS), min_present=9)
    hops = hops_of(behind(contract, "x", holed), 400, 40)
    first = int(np.flatnonzero(hops.stretch == 1)[0])
    assert not hops.windows(np.array([first]))[0][:, :360].any()
    assert [hops.frames[row].warm for row in (first, first + 8, first + 9)] == [False, False, True]
    assert hops.times[first] == pytest.approx(times[1039])


def test_less_ones_own_rest_the_gain_of_an_amplifier_is_nothing(task: Task, recordings: Recordings) -> None:
    """Three times the voltage moves the logarithms of power, and what they are taken less by as much."""
    fixed = {"kind": "classical", "name": "x", "sfreq": 160, "window_s": 2.5, "hop_s": 0.5}
    settings = Classical.model_validate(fixed | READERS["band_power"] | {"past": 0})
    (session,) = recordings.sessions("P4")
    louder = replace(session.recording, data=3 * session.recording.data)
    both = [session, replace(session, fingerprint="louder", recording=louder)]
    own = train_decoder(settings, task, FOLD, recordings, rest_s=8.0)
    plain = train_decoder(settings, task, FOLD, recordings)
    one, other = (own.play_person([some])[0] for some in both)
    np.testing.assert_allclose(other.log_probs[5:], one.log_probs[5:], atol=1e-3)
    bare, changed_ = (plain.play(some).log_probs[5:] for some in both)
    assert not np.allclose(changed_, bare, atol=0.1)
    kept = [marker for marker in session.recording.markers if marker.time >= 8.0]
    assert list(one.markers) == kept
    assert len(kept) < len(session.recording.markers)


def test_all_recordings_of_a_person_are_centred_on_the_rest_of_the_first(
    task: Task, recordings: Recordings
) -> None:
    """The second recording is told by its features less the first one's mean, and is asked for as a whole."""
    fixed = {"kind": "classical", "name": "x", "sfreq": 160, "window_s": 2.5, "hop_s": 0.5}
    settings = Classical.model_validate(fixed | READERS["band_power"])  # with a past
    own = train_decoder(settings, task, FOLD, recordings, rest_s=10.0)
    (first,) = recordings.sessions("P4")
    second = changed(first, 0)
    both, alone = own.play_person([first, second]), own.play_person([second])
    assert both[1].markers == tuple(second.recording.markers)
    warm = both[1].valid
    assert not np.allclose(both[1].log_probs[warm], alone[0].log_probs[warm], atol=0.1)
    with pytest.raises(ValueError, match="play_person"):
        own.play(second)
    with pytest.raises(ValueError, match="play_person"):
        train_decoder(settings, task, FOLD, recordings).play(second, usual=np.zeros(1))


def test_rest_that_holds_no_window_is_refused(task: Task, recordings: Recordings) -> None:
    """One second of rest has no whole window of 2.5 s."""
    fixed = {"kind": "classical", "name": "x", "sfreq": 160, "window_s": 2.5, "hop_s": 0.5}
    settings = Classical.model_validate(fixed | READERS["band_power"])
    with pytest.raises(ConfigError, match="no whole window of P0"):
        train_decoder(settings, task, FOLD, recordings, rest_s=1.0)


def test_running_standardisation_forgets_where_it_began() -> None:
    """Features of any level come out about zero and of unit spread, once the past outweighs the start."""
    rng = np.random.default_rng(0)
    features = rng.normal(40.0, 3.0, (4000, 2))
    start = Standard(np.zeros(2), np.ones(2))
    found = running(features, np.zeros(4000, dtype=np.int64), start, 0.1, 20.0)
    assert np.abs(found[-1000:].mean(axis=0)).max() < 0.2
    np.testing.assert_allclose(found[-1000:].std(axis=0), 1.0, atol=0.15)
    assert found[0] == pytest.approx(features[0])


def test_hudgins_features_of_a_known_signal() -> None:
    """A triangle wave has its mean absolute value, two crossings and two turns a period, and its length."""
    triangle = np.array([0.5, 1.5, 0.5, -0.5, -1.5, -0.5] * 10, dtype=np.float32)[None, None]
    value, crossings, turns, length = HudginsLda(kind="hudgins_lda").features(triangle, 100.0)[0]
    assert value == pytest.approx(5 / 6)
    assert crossings == pytest.approx(19 / 59)
    assert turns == pytest.approx(20 / 58)
    assert length == pytest.approx(1.0)


class Altered:
    """The same people, the recordings of some of them made into others."""

    def __init__(
        self, recordings: Recordings, alter: Callable[[Session], list[Session]], *names: str
    ) -> None:
        self._recordings = recordings
        self._made = {
            name: [made for one in recordings.sessions(name) for made in alter(one)] for name in names
        }

    def sessions(self, name: str) -> list[Session]:
        return self._made.get(name) or self._recordings.sessions(name)


def said_after_rest(
    task: Task, recordings: Recordings, altered: Altered, rest_s: float, memo: Memo | None = None
) -> np.ndarray:
    """What band powers less those of one's own rest, learned from these recordings, say of somebody new."""
    fixed = {"kind": "classical", "name": "x", "sfreq": 160, "window_s": 2.5, "hop_s": 0.5}
    settings = Classical.model_validate(fixed | READERS["band_power"] | {"past": 0})
    decoder = train_decoder(settings, task, FOLD, altered, memo, rest_s)  # type: ignore[arg-type]
    return decoder.play_person(recordings.sessions("P4"))[0].log_probs


def test_whose_amplifier_is_louder_teaches_the_same(task: Task, recordings: Recordings) -> None:
    """Who trains or validates is taken less their own rest, too: the gain of one of them is nothing."""

    def said(gain: float, name: str) -> np.ndarray:
        def alter(one: Session) -> list[Session]:
            return [replace(one, recording=replace(one.recording, data=gain * one.recording.data))]

        return said_after_rest(task, recordings, Altered(recordings, alter, name), 8.0)

    alike = said(1.0, "P0")
    np.testing.assert_allclose(said(5.0, "P0"), alike, atol=0.01)
    np.testing.assert_allclose(said(5.0, "P3"), alike, atol=0.01)
    assert np.exp(alike).max() > 0.6  # a temperature of features not centred would leave little of that


def test_what_centres_a_person_is_not_learned_from(task: Task, recordings: Recordings) -> None:
    """Nothing asked for in the rest, or in windows that hold some of it, teaches; all else does."""

    def said(first_s: float, second_s: float) -> np.ndarray:
        """Two recordings each, in which nothing is asked for until then."""

        def alter(one: Session) -> list[Session]:
            second = replace(changed(one, 0), fingerprint=f"{one.fingerprint} again")
            pairs = (one, first_s), (second, second_s)
            later = [[m for m in some.recording.markers if m.time >= until] for some, until in pairs]
            return [
                replace(some, recording=replace(some.recording, markers=tuple(markers)))
                for (some, _), markers in zip(pairs, later, strict=True)
            ]

        altered = Altered(recordings, alter, *FOLD.train, *FOLD.validate)
        return said_after_rest(task, recordings, altered, 9.0, memo)

    memo = Memo(100)
    every = said(0.0, 0.0)
    np.testing.assert_array_equal(said(12.0, 0.0), every)  # the answer at 11 s is of a window from 8.5 s on
    assert not np.allclose(said(16.0, 0.0), every)
    assert not np.allclose(said(0.0, 4.0), every)  # the second recording does not begin with rest


def test_a_folder_that_memory_does_not_hold_teaches_the_same(
    task: Task, recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recordings that are read again whenever they are needed are the same recordings."""
    kept = said_after_rest(task, recordings, Altered(recordings, lambda one: [one]), 12.0)
    monkeypatch.setattr(people, "KEPT_BYTES", 0)
    again = Recordings(task.folder, task.stype)
    np.testing.assert_array_equal(said_after_rest(task, again, Altered(again, lambda one: [one]), 12.0), kept)


@pytest.mark.parametrize("end_s", [32.0, 30.0])
def test_only_a_whole_window_of_what_was_recorded_is_an_answer(
    recordings: Recordings, task: Task, end_s: float
) -> None:
    """None is asked for before a window is full, behind a hole neither, nor where the signal ends first."""
    (session,) = recordings.sessions("P4")
    whole, n = session.recording, round(end_s * 160)
    times = whole.times[:n] + np.where(np.arange(n) < 2560, 0.0, 5.0)
    markers = tuple(replace(m, time=m.time + 5.0) if m.time >= 16.0 else m for m in whole.markers)
    torn = replace(whole, data=whole.data[:n], times=times, breaks=(2560,), markers=markers)
    contract = InputContract(sfreq=160, unit="uV", ch_names=tuple(CHANNELS), min_present=9)
    hops = hops_of(behind(contract, "x", replace(session, recording=torn)), 640, 40)
    rows, labels = asked(hops, replace(session, recording=torn), task)
    kept = [m for m in markers if m.time not in (0.0, 21.0) and m.time + 3.0 <= end_s + 5.0]
    assert len(kept) == (6 if end_s == 32.0 else 5)
    np.testing.assert_allclose(hops.times[rows], [m.time + 3.0 - 1 / 160 for m in kept])
    assert [task.classes[label] for label in labels] == [m.label for m in kept]
    assert hops.windows(rows).any(axis=1).all(), "there is signal all through"


def test_behind_a_hole_it_decides_anew(task: Task, recordings: Recordings) -> None:
    """As a run does: neither smoothing, nor a label, nor its refractory period goes on."""
    slow = {"smoothing_s": 5.0, "threshold": 0.3, "release": 0.1, "dwell_s": 0.0, "refractory_s": 9.0}
    fixed = {"kind": "classical", "name": "mdm", "sfreq": 160, "window_s": 0.5, "hop_s": 0.5}
    settings = Classical.model_validate(fixed | READERS["mdm"] | {"decision": slow})
    decoder = train_decoder(settings, task, FOLD, recordings)
    (session,) = recordings.sessions("P4")
    times, first = session.recording.times.copy(), 2000
    times[first:] += 1.0
    holed = replace(
        session, fingerprint="holed", recording=replace(session.recording, times=times, breaks=(first,))
    )
    played = decoder.play(holed)
    behind_it = played.times > times[first]
    alone = replace(played, times=played.times[behind_it], log_probs=played.log_probs[behind_it])
    alone = replace(alone, valid=played.valid[behind_it])
    labels = decide(alone, settings.decision, task.classes, task.idle)
    np.testing.assert_array_equal(played.labels[behind_it], labels)
    assert len(set(played.labels.tolist())) > 1
