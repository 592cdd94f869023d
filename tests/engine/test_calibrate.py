"""`bcistream calibrate`: trials are found, cues are given, and what cannot be calibrated is said."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_bundle import CHANNELS, CLASSES
from toy_head import LATENTS, source, write_headed
from typer.testing import CliRunner

from engine import calibrate_stream
from engine.answers import Answer, Labelled, LatentLog, answer_of, behind_rest, labelled
from engine.bundle import load
from engine.calibrate import _file, calibrate, centred, fitted, made_of, told
from engine.calibrate_stream import Ask
from engine.calibrate_stream import _steps as steps_of
from engine.calibration import read
from engine.cli import app
from engine.config import RunConfig, parse
from engine.config import read as read_config
from engine.cues import Cues, plan
from engine.gains import Gain
from engine.head import pack
from engine.live import Observer, run_config
from engine.progress import progress_bar
from engine.prompt import line, prompt
from engine.refit import Examples
from engine.refit_choice import LAST_STRENGTH, STRENGTH, Choice, choose
from streamer.errors import BciError, ConfigError
from streamer.player import Player
from streamer.sources.synthetic import Config as Synthetic
from streamer.types import Decision, Marker

HOP_S = 0.1
GAINED = Gain(1, (2.0, 9.0, 10.0, 11.0))
SUBJECT = {
    "kind": "synthetic",
    "seed": 3,
    "sfreq": 160.0,
    "ch_names": list(CHANNELS),
    "seconds": 61.0,
    "trial_s": 4.0,
    "rest_s": 2.0,
    "speed": "max",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_headed(tmp_path_factory.mktemp("headed") / "bundle")


def config(folder: Path, **source: object) -> RunConfig:
    return parse(
        {"source": SUBJECT | source if "kind" not in source else source, "bundle": str(folder)}, "test"
    )


def logged(seconds: float, invalid: tuple[float, float] = (0.0, 0.0)) -> LatentLog:
    """A log whose one latent is the time."""
    log = LatentLog("latent")
    for k in range(1, round(seconds / HOP_S) + 1):
        time = k * HOP_S
        log.observe(None, {"latent": np.array([[time]], dtype=np.float32)})  # type: ignore[arg-type]
        log.write(Decision(k, time, (1.0,), None, 1.0, not invalid[0] < time < invalid[1]))
    return log


def test_a_trial_is_the_mean_of_its_answer() -> None:
    """The latents later than from_s and up to at_s after the cue, averaged; what is cut off is left out."""
    markers = [Marker(1.0, "left"), Marker(5.0, "right", 4.0), Marker(9.0, "left"), Marker(11.5, "right")]
    found = labelled(logged(12.05), markers, ("rest", "left", "right"), Answer(0.5, 2.5))
    np.testing.assert_allclose(found.examples.latents.ravel(), [2.55, 6.55, 10.55], atol=1e-5)
    assert found.examples.labels.tolist() == [1, 2, 1]
    assert found.trials == {"left": 2, "right": 1}
    assert (found.endless, found.short) == (0, 0)
    told = labelled(
        logged(12.05), [*markers, Marker(2.0, "feedback")], ("rest", "left", "right"), Answer(0.5, 2.5)
    )
    np.testing.assert_array_equal(told.examples.latents, found.examples.latents)


def test_where_the_last_decision_answers_the_last_half_second_is_learned_from() -> None:
    """Of a trial of 2 s what lies in its last half second, of one of 0.3 s all of it."""
    protocol = {"kind": "trials", "from_s": 0.5, "at_s": 2.55, "answer": "last"}
    for from_s, mean in ((0.5, 3.3), (2.25, 3.4)):
        answer = answer_of({"task": {"protocol": protocol | {"from_s": from_s}}})
        found = labelled(logged(8), [Marker(1.0, "left")], ("left", "right"), answer)
        np.testing.assert_allclose(found.examples.latents, [[mean]], atol=1e-5)


def test_a_long_stretch_gives_parts() -> None:
    """Where every window counts, a stretch gives the means of at most six parts, of one trial."""
    answer = answer_of({"task": {"protocol": {"kind": "windows", "from_s": 0.2, "window_s": 0.25}}})
    found = labelled(
        logged(20), [Marker(1.0, "rest", 10.2), Marker(12.0, "left", 1.0)], ("rest", "left"), answer
    )
    assert found.examples.trials.tolist() == [0] * 6 + [1] * 3
    assert found.examples.weights.sum() == pytest.approx(9)
    assert found.examples.weights[:6].sum() == pytest.approx(found.examples.weights[6:].sum())


def test_bad_signal_is_left_out() -> None:
    """A trial more than half of which is invalid does not count, and is counted as left out."""
    markers = [Marker(1.0, "left"), Marker(5.0, "left")]
    found = labelled(logged(12, invalid=(1.4, 3.0)), markers, ("left", "right"), Answer(0.5, 2.5))
    assert (found.trials, found.left_out) == ({"left": 1}, 1)


def test_of_a_trial_only_good_signal_is_learned_from() -> None:
    """Where a quarter of a trial is bad, its mean is that of the rest."""
    log = logged(8, invalid=(1.4, 2.05))
    found = labelled(log, [Marker(1.0, "left")], ("left", "right"), Answer(0.5, 2.55))
    np.testing.assert_allclose(found.examples.latents, [[2.8]], atol=1e-5)  # 2.1 to 3.5 s


def test_only_rest_leaves_markers_out() -> None:
    """What is asked for before the first decision counts, unless that is the rest which centres."""
    markers = [Marker(0.0, "left"), Marker(1.0, "right"), Marker(1.2, "left")]
    assert behind_rest(logged(5), markers, 0.0) == markers
    assert behind_rest(logged(5), markers, 1.0) == markers[2:]


def test_time_classes_and_number_limit_what_is_used() -> None:
    """Each of the three limits leaves out what is beyond it."""
    markers = [Marker(3.0 * k, ("left", "right")[k % 2]) for k in range(6)]
    log, classes, answer = logged(30), ("left", "right"), Answer(0.5, 2.5)
    assert labelled(log, markers, classes, answer, before=8.6).trials == {"left": 2, "right": 1}
    assert labelled(log, markers, classes, answer, most=4).trials == {"left": 2, "right": 2}
    assert labelled(log, markers, classes, answer, among=("right",)).trials == {"right": 3}


def test_a_stretch_is_used_up_to_where_the_time_ends() -> None:
    """Half of what was asked for lies before it: the same whether the signal goes on or not."""
    markers = [Marker(0.0, "left", 10.0), Marker(10.0, "right", 20.0)]
    whole, cut = (
        labelled(logged(seconds), markers, ("left", "right"), Answer(0.0, None, 4.0), before=20.0)
        for seconds in (30.0, 20.0)
    )
    assert whole.trials == cut.trials == {"left": 1, "right": 1}
    np.testing.assert_array_equal(whole.examples.latents, cut.examples.latents)


def test_a_recording_calibrates(folder: Path, tmp_path: Path) -> None:
    """From the command line: the file is written, says what it was made of, and a run takes it."""
    path, out = tmp_path / "run.yaml", tmp_path / "calibration.json"
    path.write_text(json.dumps({"source": SUBJECT, "bundle": str(folder)}))
    result = CliRunner().invoke(app, ["calibrate", str(path), "-o", str(out), "--json"])
    assert result.exit_code == 0, result.output
    made = read(out)
    assert made.made_of.trials == {"rest": 10, "left_fist": 5, "right_fist": 5}
    assert made.old is not None
    answer = CliRunner().invoke(app, ["run", str(path), "--calibration", str(out), "--json"])
    assert made.words() in json.loads(answer.stdout)["calibration"]


def test_trials_are_counted_again_only_where_one_has_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --trials, all that was heard is looked through once a trial, not with every decision."""
    ask, looks = Ask(trials=8, classes=CLASSES[1:]), []
    count = calibrate_stream.trials_of
    monkeypatch.setattr(calibrate_stream, "trials_of", lambda *given: looks.append(0) or count(*given))
    seldom = calibrate(config(folder), ask)
    assert sum(seldom.made_of.trials.values()) == 8
    assert len(looks) <= 20, "as many as there are markers"
    monkeypatch.setattr(calibrate_stream.Hearing, "_more_ended", lambda *_: True)
    assert calibrate(config(folder), ask) == seldom


def test_a_run_says_what_is_not_known_of_a_calibrated_head(folder: Path, tmp_path: Path) -> None:
    """Rates that a bundle promises with its own head, it does not promise with another."""
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    manifest = json.loads((mine / "bundle.json").read_text())
    bound = load(mine).readout.decision.threshold
    manifest["readout"]["operating"] = [{"false_per_min": 1.0, "bound": bound, "hits": 0.5, "wrong": 0.1}]
    (mine / "bundle.json").write_text(json.dumps(manifest))
    path, out, heard = tmp_path / "run.yaml", tmp_path / "me.json", []
    path.write_text(json.dumps({"source": SUBJECT, "bundle": str(mine)}))
    run_config(read_config(path), say=heard.append)
    assert any("expect about 50 % of the commands" in line for line in heard)
    kept = calibrate(parse({"source": SUBJECT, "bundle": str(mine)}, "test"), Ask())
    other = {"weight": np.eye(LATENTS).tolist(), "bias": [0.0] * LATENTS}
    out.write_text(json.dumps(kept.model_dump(mode="json") | other))
    assert read(out).replaces
    path.write_text(json.dumps({"source": SUBJECT, "bundle": str(mine), "calibration": str(out)}))
    heard.clear()
    run_config(read_config(path), say=heard.append)
    checked = CliRunner().invoke(app, ["check", str(path), "--json"])
    for said in ("\n".join(heard), checked.stdout):
        assert "Nobody has measured what to expect since" in said
        assert "expect about" not in said
    for one, head, lost in ((mine, source().head, True), (mine, None, False), (folder, source().head, False)):
        made = _file(load(one), head, "taken or kept", "because", kept.made_of)
        assert ("nobody has measured" in made.reason) == lost  # already when the head is taken


def test_the_result_is_told_class_by_class(folder: Path) -> None:
    """People read what was decided, why, and each class before and after."""
    lines = told(calibrate(config(folder), Ask()))
    assert set(lines) >= {"result", "because", "all", *CLASSES}
    assert "refitted" in lines["left_fist"]


@pytest.mark.usefixtures("lsl_session")
def test_live_calibrates_as_the_file(folder: Path) -> None:
    """Over LSL with its marker stream the same trials are found, and the head decides as on the file."""
    name = f"subject-{uuid.uuid4().hex[:8]}"
    made = []
    for use in ("calibrate", "run"):
        with (
            Synthetic.model_validate(SUBJECT).open() as subject,
            Player(subject, name=name, speed="max") as player,
        ):
            thread = threading.Thread(target=player.run)
            thread.start()
            live = config(folder, kind="lsl", source_id=name, markers=f"{name}-markers")
            if use == "calibrate":
                made.append(calibrate(live, Ask(seconds=60.0)))
            else:
                heard: list[Decision] = []
                run_config(
                    live.model_copy(update={"calibration": written(made[0], folder)}),
                    extra=Observer(heard.append),
                )
            thread.join()
    direct = calibrate(config(folder), Ask(seconds=60.0))
    assert made[0].made_of.trials == direct.made_of.trials
    assert (made[0].weight, made[0].bias) == (direct.weight, direct.bias)
    replayed: list[Decision] = []
    taken = config(folder).model_copy(update={"calibration": written(direct, folder)})
    run_config(taken, extra=Observer(replayed.append))
    assert [d.probabilities for d in heard] == [d.probabilities for d in replayed]


def written(made: object, folder: Path) -> Path:
    """Write a calibration beside the bundle."""
    path = folder.parent / f"{uuid.uuid4().hex}.json"
    path.write_text(made.model_dump_json())  # type: ignore[attr-defined]
    return path


def test_ctrl_c_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption ends with exit code 130 and neither a file nor half of one."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        calibrate(config(folder), Ask(), stop=stop)
    path, out = tmp_path / "run.yaml", tmp_path / "out" / "calibration.json"
    path.write_text(json.dumps({"source": SUBJECT, "bundle": str(folder)}))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.calibrate.calibrate", interrupted)
    assert CliRunner().invoke(app, ["calibrate", str(path), "-o", str(out)]).exit_code == 130
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("source", "ask", "message"),
    [
        ({"kind": "lsl", "name": "x"}, Ask(), "names no marker stream"),
        ({"kind": "brainflow", "board": "SYNTHETIC_BOARD"}, Ask(), "The board knows no events.*--cues"),
        ({}, Ask(classes=("left_foot",)), "has no class left_foot; it has rest, left_fist, right_fist"),
        ({}, Ask(rest_s=10.0), "not trained on latents that are centred"),
        ({}, Ask(cues=True), "this source is a recording"),
        ({}, Ask(seconds=5.0), "at least 4, of two classes"),
        ({"seconds": 1.0}, Ask(), "0 labelled trials of none"),
    ],
)
def test_what_cannot_be_calibrated_is_said(
    folder: Path, source: dict[str, object], ask: Ask, message: str
) -> None:
    """Before a stream is waited for where that can be known, and with what to do."""
    with pytest.raises(BciError, match=message):
        calibrate(config(folder, **source), ask)


def test_a_stretch_of_rest_centres(tmp_path: Path) -> None:
    """A bundle with a head for centred latents is calibrated by rest alone; labelled trials may refit it."""
    folder = write_headed(tmp_path / "bundle", pack(source(centred=True)))
    alone = calibrate(config(folder, seconds=9.0, rest_s=7.0), Ask(rest_s=7.0))
    assert (alone.method, alone.made_of.trials) == ("the head was centred on the rest", {})
    assert alone.made_of.rest_s == pytest.approx(7.0, abs=0.5)
    assert alone.head is not None
    np.testing.assert_array_equal(alone.head.weight, 2 * np.eye(LATENTS))
    assert calibrate(config(folder), Ask(rest_s=2.0)).old is not None


@pytest.mark.parametrize(
    ("rest_s", "asked", "kept"),
    [(8.0, 7.0, 7.0), (6.0, 7.0, 6.0), (4.0, 4.0, 4.0), (2.0, 7.0, None), (8.0, 20.0, None)],
)
def test_what_is_asked_for_in_a_rest_is_none_of_it(
    tmp_path: Path, rest_s: float, asked: float, kept: float | None
) -> None:
    """It ends at the first cue, which is told; where less than half of it is left it is refused."""
    folder = write_headed(tmp_path / "bundle", pack(source(centred=True)))
    subject, said = config(folder, n_trials=1, rest_s=rest_s), list[str]()
    if kept is None:
        with pytest.raises(ConfigError, match=f"The {asked:g} s of rest are none: .* asked for from"):
            calibrate(subject, Ask(rest_s=asked))
        return
    made = calibrate(subject, Ask(rest_s=asked), say=said.append)
    assert made.made_of.rest_s == pytest.approx(kept, abs=0.3)
    cued = [name for name in made.made_of.trials if name != "rest"]
    assert len(cued) == 1, "also where its trial began within what was said to be rest"
    told_ = [line for line in said if f"of the {asked:g} s are taken for rest" in line]
    assert len(told_) == (kept < asked)


def test_a_rest_longer_than_the_signal_is_refused(tmp_path: Path) -> None:
    """With how much there is; nothing of it is taken in silence for the whole."""
    folder = write_headed(tmp_path / "bundle", pack(source(centred=True)))
    with pytest.raises(ConfigError, match="Only 10 s of the 600 s of rest came"):
        calibrate(config(folder, seconds=10.0, rest_s=20.0), Ask(rest_s=600.0))


@pytest.mark.parametrize("begin", [0.0, 1e3 + 0.1, 1e6 + 0.1, 3e7 + 0.3])
def test_the_rest_ends_where_it_does_on_any_clock(begin: float) -> None:
    """The hop at its very end belongs to it, however large the stamps are and whatever they round to."""
    times = begin + np.arange(20) * 0.1
    latents = np.arange(20, dtype=np.float32)[:, None] * np.ones(LATENTS, dtype=np.float32)
    log: Any = SimpleNamespace(times=times, valid=np.ones(20, dtype=bool), latents=latents)
    base, seconds = centred(source(centred=True), log, 0.7)
    assert seconds == pytest.approx(0.8)
    np.testing.assert_allclose(base.head.bias, -2 * 3.5)


def test_what_others_gained_says_nothing_of_a_centred_head() -> None:
    """It was measured on the other head, so one's own trials alone speak for a refit of a centred one."""
    latents = np.ones((9, LATENTS), dtype=np.float32)
    log: Any = SimpleNamespace(times=np.arange(9.0), valid=np.ones(9, dtype=bool), latents=latents)
    known = replace(source(centred=True), gains=(GAINED,))
    assert [centred(known, log, rest_s)[0].gains for rest_s in (0.0, 5.0)] == [(GAINED,), ()]


@pytest.mark.parametrize(
    ("protocol", "idle", "strength"),
    [
        ({"kind": "trials"}, "rest", STRENGTH),
        ({"kind": "trials", "answer": "last"}, "rest", LAST_STRENGTH),
        ({"kind": "windows", "window_s": 1.0}, None, STRENGTH),
    ],
)
def test_a_head_is_refitted_for_how_its_bundle_is_asked(
    folder: Path, protocol: dict[str, object], idle: str | None, strength: float
) -> None:
    """Idle answers windows and no cue, and a head whose last decision answers moves less than others."""
    plain = load(folder)
    told_ = plain.manifest.model_copy(update={"provenance": {"task": {"protocol": protocol}}})
    rng, labels = np.random.default_rng(1), np.repeat(np.arange(LATENTS), 6)
    latents = 2 * np.eye(LATENTS)[labels] + rng.normal(size=(len(labels), LATENTS))
    examples = Examples(latents, labels, np.arange(len(labels)))
    base = replace(source(), gains=(GAINED,))
    found = Labelled(examples, dict.fromkeys(CLASSES, 6), 0, 60.0)
    made = fitted(replace(plain, manifest=told_), base, found, made_of(found, "me"))

    def chosen(idle: str | None, strength: float) -> Choice:
        return choose(base, plain.readout.temperature, examples, CLASSES, idle, strength)

    wanted = chosen(idle, strength)
    assert made.reason == wanted.reason != chosen(None if idle else "rest", strength).reason
    assert made.head is not None
    assert wanted.head is not None
    np.testing.assert_array_equal(made.head.weight, wanted.head.weight)


@pytest.mark.usefixtures("lsl_session")
def test_rest_needs_no_markers(tmp_path: Path) -> None:
    """A live stream without a marker stream centres the head by its rest, as the recording of it does."""
    folder = write_headed(tmp_path / "bundle", pack(source(centred=True)))
    name = f"rest-{uuid.uuid4().hex[:8]}"
    resting = SUBJECT | {"seconds": 7.0, "rest_s": 7.0}
    with (
        Synthetic.model_validate(resting).open() as subject,
        Player(subject, name=name, speed="max") as player,
    ):
        thread = threading.Thread(target=player.run)
        thread.start()
        live = calibrate(config(folder, kind="lsl", source_id=name), Ask(rest_s=6.0))
        thread.join()
    direct = calibrate(config(folder, **resting), Ask(rest_s=6.0))
    assert (live.method, live.made_of.trials) == ("the head was centred on the rest", {})
    assert (live.weight, live.bias) == (direct.weight, direct.bias)


def test_too_few_trials_behind_a_rest_do_not_undo_it(tmp_path: Path) -> None:
    """Rest calibrates although the trials behind it are too few for more, and that is said."""
    folder = write_headed(tmp_path / "bundle", pack(source(centred=True)))
    made = calibrate(config(folder, seconds=22.0, rest_s=7.0), Ask(rest_s=7.0))
    assert made.method == "the head was centred on the rest"
    assert "at least 4" in made.reason


@pytest.mark.usefixtures("lsl_session")
def test_cues_calibrate_a_live_stream(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over LSL without markers our own cues, by a clock that runs with the samples, become the trials."""
    name = f"cued-{uuid.uuid4().hex[:8]}"
    shown: list[str] = []
    log = LatentLog("latent")
    monkeypatch.setattr("engine.calibrate_stream.LatentLog", lambda latent: log)
    with (
        Synthetic.model_validate(SUBJECT).open() as subject,
        Player(subject, name=name, speed="max") as player,
    ):
        thread = threading.Thread(target=player.run)
        thread.start()
        made = calibrate(
            config(folder, kind="lsl", source_id=name),
            Ask(trials=4, cues=True, trial_s=4.0, pause_s=2.0),
            show=lambda words, left, done: shown.append(words),
            clock=lambda: float(log.times[-1]) if len(log.times) else 0.0,
        )
        thread.join()
    assert made.made_of.trials == {"rest": 4, "left_fist": 2, "right_fist": 2}
    assert shown[0] == "get ready"
    assert {"left fist", "right fist", "relax"} <= set(shown)


def test_a_plan_asks_for_all_alike() -> None:
    """Rest first, then trials of the cued classes, alike often; the pauses are trials of the idle one."""
    steps = plan(CLASSES, "rest", trials=5, trial_s=4.0, pause_s=2.0, rest_s=60.0)
    assert [step.seconds for step in steps] == [3.0, 60.0, *[4.0, 2.0] * 5]
    labels = [step.label for step in steps]
    assert labels[:2] == [None, "rest"]
    counts = [labels[2:].count(name) for name in CLASSES]
    assert counts[0] == 5
    assert sorted(counts[1:]) == [2, 3]
    assert {step.label for step in plan(CLASSES[1:], "rest", trials=2, trial_s=4, pause_s=2)} == {
        None,
        *CLASSES[1:],
    }


def test_cues_last_as_long_as_the_bundle_needs() -> None:
    """Where windows of 30 s are answered, trials of the 4 s that others take would all be left out."""
    protocol = {"kind": "windows", "from_s": 2.0, "window_s": 30.0}
    provenance = {"task": {"classes": ["rest", "work"], "protocol": protocol}}
    bundle: Any = SimpleNamespace(
        readout=SimpleNamespace(classes=("rest", "work"), idle="rest"),
        manifest=SimpleNamespace(provenance=provenance),
    )
    steps = steps_of(Ask(trials=2, cues=True), bundle)
    log, now, markers = logged(150.0), 0.0, []
    for step in steps:
        markers += [Marker(now, step.label, step.seconds)] if step.label else []
        now += step.seconds
    found = labelled(log, markers, ("rest", "work"), answer_of(provenance))
    assert found.trials == {"rest": 2, "work": 2}
    assert [step.seconds for step in steps_of(Ask(trials=1, cues=True, trial_s=50.0), bundle)][1:] == [
        50,
        32.5,
    ]


def test_cues_are_stamped_when_they_are_shown() -> None:
    """A step begins at the look that shows it, never before; a pause of the stream delays what follows."""
    shown: list[str] = []
    cues = Cues(
        plan(("left_fist",), None, trials=2, trial_s=4.0, pause_s=2.0),
        lambda words, left, done: shown.append(line(words, left, done)),
    )
    for now in (100.0, 101.0, 103.25, 107.0, 120.0, 122.5, 127.0, 130.0):
        cues.look(now)
    assert cues.markers == (Marker(103.25, "left_fist", 4.0), Marker(122.5, "left_fist", 4.0))
    assert cues.over
    assert "LEFT FIST" in shown[2]
    assert "4 s" in shown[2]
    assert shown[-1].endswith("%")


def test_a_screen_without_cues_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --cues nothing is drawn."""
    with prompt(False) as show:
        show("left", 1.0, 0.5)
    assert capsys.readouterr() == ("", "")


def test_an_unreadable_protocol_is_the_default() -> None:
    """Half a second to three seconds after the cue, where a bundle tells nothing."""
    assert answer_of({}) == answer_of({"task": {"protocol": {"kind": "trials"}}}) == Answer(0.5, 3.0)
    assert answer_of({"recipe": {"task": {"folder": {}}}}) == Answer(0.5, 3.0)


def test_an_older_fine_tuned_bundle_tells_its_protocol_in_its_recipe() -> None:
    """Its windows are where its recipe says, as those of a bundle that tells its task."""
    task = {"folder": {}, "stype": "EEG", "from_s": 5.0, "window_s": 2.0}
    told = {"task": {"protocol": {"kind": "windows", "from_s": 5.0, "window_s": 2.0}}}
    assert answer_of({"recipe": {"task": task}}) == answer_of(told) == Answer(5.0, None, 2.0)
    assert answer_of({"recipe": "0123abcd"}) == Answer()


def test_a_recording_tells_how_far_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who waits sees the seconds played, up to all of them; nothing of it where nobody looks."""
    seen: list[tuple[float, float]] = []
    calibrate(config(folder), Ask(), progress=lambda played, total: seen.append((played, total)))
    played = [at for at, _ in seen]
    assert played == sorted(played)
    assert {total for _, total in seen} == {61.0}
    assert played[-1] == pytest.approx(61.0, abs=0.1)
    with progress_bar("calibrate", False) as silent:
        silent(1.0, 2.0)
    assert capsys.readouterr() == ("", "")
    with progress_bar("calibrate", True) as drawn:
        drawn(61.0, 61.0)
    assert "61 of 61 s" in capsys.readouterr().err
