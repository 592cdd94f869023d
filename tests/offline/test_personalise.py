"""A decoder made one person's by gradient: what moves, what it may know, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from typer.testing import CliRunner  # noqa: E402

from engine.bundle import load  # noqa: E402
from engine.calibration import personal  # noqa: E402
from offline.cli import app  # noqa: E402
from offline.data.trials import Prepared  # noqa: E402
from offline.evaluate.recordings import find_people, task_of  # noqa: E402
from offline.evaluate.run import scorable  # noqa: E402
from offline.personal import filters, scoring, writing  # noqa: E402
from offline.personal.filters import (  # noqa: E402
    Settings,
    _answers,
    _of_rest,
    _truth,
    adapt,
    learned,
    refuse,
)
from offline.personal.origin import TRAINING, keep_training, origin  # noqa: E402
from offline.personal.person import read_person  # noqa: E402
from offline.personal.scoring import _rest, _row, score_people  # noqa: E402
from offline.personal.shown import HELD, _spans, shown_by, with_mirrored  # noqa: E402
from offline.personal.writing import personalise  # noqa: E402
from offline.train.augment import Augment  # noqa: E402
from streamer.errors import ConfigError, RecordingError  # noqa: E402

FEW = Settings(steps=3)
SURE = Settings(steps=30, lr=1e-2)


@pytest.fixture(scope="module")
def one(tiny_run: Any, tiny_bundle: Any) -> Any:
    """The tiny bundle and its training."""
    return origin(tiny_bundle.folder, tiny_run.recipe.output)


@pytest.fixture(scope="module")
def person(one: Any, corpus_dir: Path) -> Any:
    """Somebody whom it does not know: two recordings of 12 trials in turn with rest."""
    task = task_of(one.bundle, corpus_dir)
    return read_person(one, task, find_people(task, ["A3"])[0])


def differing(model: Any, other: Any) -> set[str]:
    """Return the names of what is not the same in both."""
    state = other.state_dict()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, state[name])}


def test_filters_over_electrodes_move_and_nothing_else(one: Any, person: Any) -> None:
    """Of a copy; the model that was given is as it was."""
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    moved = differing(learned(one.model, one.run.recipe, person.shown, FEW), one.model)
    assert moved
    assert all({"sources", "topography"} & set(name.split(".")) for name in moved)
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())


def test_trials_are_the_signal_before_their_answers(one: Any, person: Any) -> None:
    """What a window says at its end is what the stream says at the answer: streamed is windowed."""
    recipe, stretch = one.run.recipe, person.side.stretches[0][0]
    whole = stretch.data[: len(stretch.data) // one.model.hop * one.model.hop].T[None]
    with torch.inference_mode():
        streamed, _ = one.model(torch.from_numpy(np.ascontiguousarray(whole)), one.model.init_state(1))
        windows, _ = one.model(person.shown.x, one.model.init_state(len(person.shown)))
        rest, _ = one.model(person.shown.rest[:1], one.model.init_state(1))
    logits, at = streamed["logits"][0], recipe.protocol.at_s * recipe.sfreq
    trial = next(first for first, _, place in stretch.spans if place)
    resting = [first for first, _, place in stretch.spans if not place][1]  # the first begins too early
    hops = [round(first + at) // one.model.hop for first in (trial, resting)]
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(windows["logits"][0, -1], logits[hops[0] - 1], **close)
    torch.testing.assert_close(rest["logits"][0, -HELD:], logits[hops[1] - HELD : hops[1]], **close)


def test_what_was_learned_shows(one: Any, person: Any) -> None:
    """Trials that were left out are answered more surely, and the same trials make the same filters."""
    first, second = (adapt(one.model, one.run.recipe, person.shown, SURE, 1.0) for _ in range(2))
    assert first.better
    assert first.after < first.before
    assert (first.before, first.after, first.bolder) == (second.before, second.after, second.bolder)
    assert not differing(first.model, second.model)


def test_a_trial_left_out_has_no_part_in_its_own_answer(one: Any, person: Any) -> None:
    """Labels that nothing in the signal tells are learned by heart, and left-out ones are guessed."""
    rng, recipe = np.random.default_rng(0), one.run.recipe.model_copy(update={"augment": Augment()})
    noise = replace(
        person.shown.first(0),
        x=torch.from_numpy(rng.normal(size=(16, *person.shown.x.shape[1:])).astype(np.float32)),
        labels=torch.from_numpy(rng.permutation(np.repeat([1, 2], 8))),
        answered=np.arange(16.0),
        ended=np.arange(16.0),
    )
    assert not len(noise.rest)
    came = adapt(one.model, recipe, noise, Settings(steps=100, lr=3e-2), 1.0)
    by_heart = torch.nn.functional.cross_entropy(_answers(came.model, recipe, noise.x), _truth(recipe, noise))
    assert by_heart < 0.5
    assert came.after > 0.6  # log 2 is a guess


def test_a_mirrored_person_gets_the_same_filters(one: Any, person: Any) -> None:
    """The trials and their mirror images are learned from alike: swapped hemispheres change nothing."""
    recipe, n = one.run.recipe, len(person.shown)
    swapped = with_mirrored(person.shown, recipe).take(range(n, 2 * n))
    assert not torch.equal(swapped.labels, person.shown.labels)
    models = [learned(one.model, recipe, some, FEW) for some in (person.shown, swapped)]
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(value, models[1].state_dict()[name], atol=1e-5, rtol=1e-4)


def test_any_number_of_trials_at_once_is_the_same(
    one: Any, person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learning in parts is learning at once."""
    whole = learned(one.model, one.run.recipe, person.shown, FEW)
    monkeypatch.setattr(filters, "AT_ONCE", 5)
    parts = learned(one.model, one.run.recipe, person.shown, FEW)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, parts.state_dict()[name], atol=1e-5, rtol=1e-4)


def test_what_was_said_of_rest_is_held_on_to(one: Any, person: Any) -> None:
    """A net that only learns its trials grows bolder in rest; held, it hardly does."""
    recipe, shown = one.run.recipe, person.shown
    assert len(shown.rest) == 10  # of 12; two begin a recording, before the net is warm
    models = [
        learned(one.model, recipe, shown, SURE.model_copy(update={"hold": hold})) for hold in (0.0, 10.0)
    ]
    said, *now = (_of_rest(model, shown.rest) for model in (one.model, *models))
    moved = [float((each - said).abs().mean()) for each in now]
    assert moved[1] < 0.5 * moved[0]


class Doubled(torch.nn.Module):
    """Says the same twice as loudly."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.init_state = model, model.init_state

    def forward(self, x: Any, state: Any) -> Any:
        outputs, state = self.model(x, state)
        return {**outputs, "logits": 2 * outputs["logits"]}, state


def test_who_only_grows_bolder_is_cooled_and_kept_as_it_was(
    one: Any, person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the logits, twice the temperature: and then nothing was learned."""
    monkeypatch.setattr(filters, "learned", lambda model, *_: Doubled(model))
    came = adapt(one.model, one.run.recipe, person.shown, FEW, 1.5)
    assert came.bolder == pytest.approx(2.0)
    assert came.after == pytest.approx(came.before)


def test_the_first_trials_come_with_the_rest_before_them(person: Any) -> None:
    """And with nothing that was not over yet when the last of them was answered."""
    some = person.shown.first(5)
    assert len(some) == 5
    assert 0 < len(some.rest) < len(person.shown.rest)
    assert some.rested.max() <= some.answered.max()
    assert torch.equal(some.rest, person.shown.rest[: len(some.rest)])


def test_cues_without_a_duration_last_until_the_next() -> None:
    """Markers of an LSL stream tell no duration: what was asked for ends when something else is."""
    one = Prepared("A", np.zeros((1000, 3), np.float32), ((700, 700, 1), (100, 100, 0), (400, 500, 2)))
    assert list(_spans(one)) == [(100, 400, 400, 0), (400, 500, 700, 2), (700, 1000, 1000, 1)]


@pytest.mark.parametrize(("lasts_s", "taken"), [(1.0, 0), (2.0, 10)])
def test_rest_that_is_too_short_is_not_held_on_to(one: Any, person: Any, lasts_s: float, taken: int) -> None:
    """Its last hops would be of what came before it; the trials are the same, however short it is."""
    recipe = one.run.recipe
    n, needed = round(lasts_s * recipe.sfreq), HELD * one.model.hop
    assert (n >= needed + one.model.hop) == bool(taken)

    def cut(stretch: Prepared) -> Prepared:
        spans = tuple((a, b if place else min(b, a + n), place) for a, b, place in stretch.spans)
        return replace(stretch, spans=spans)

    stretches = tuple(tuple(map(cut, some)) for some in person.side.stretches)
    shown = shown_by(one.model, replace(person.side, stretches=stretches), recipe)
    assert len(shown.rest) == taken
    assert torch.equal(shown.x, person.shown.x)


def test_recordings_follow_each_other(one: Any, tmp_path: Path, run_writer: Callable[..., Path]) -> None:
    """Times are of all the signal there is, whichever recording a trial is in."""
    for run in (1, 2, 3):
        run_writer(
            tmp_path / "B1" / f"B1R{run}.npz", seed=40 + run, n_trials=2
        )  # 16 s each, cues at 4 and 12
    task = task_of(one.bundle, tmp_path)
    shown = read_person(one, task, find_people(task, ["B1"])[0]).shown
    assert shown.answered == pytest.approx([7, 15, 23, 31, 39, 47])
    assert shown.ended == pytest.approx([8, 16, 24, 32, 40, 48])


@pytest.mark.parametrize("n", [5, 8])
def test_what_is_scored_comes_after_what_was_learned(one: Any, person: Any, n: int) -> None:
    """Cues from the end of the last learned trial on, in whichever recording that is, and nothing before."""
    since = float(person.shown.ended[n - 1])
    rest = _rest(one, person, one.model, since, 1.0)
    begun = 0.0 if n < 6 else float(person.side.sessions[0].recording.times[-1]) + 1 / 160
    assert len(rest) == (2 if n < 6 else 1)
    assert rest[0].times[0] >= since - begun
    asked = [mark for some in rest for mark in some.markers if mark.label != "rest"]
    assert len(asked) == 12 - n
    assert rest[0].markers[0].time == pytest.approx(since - begun, abs=1e-3)


def test_a_score_is_of_what_is_asked_once_the_last_learned_trial_is_over(
    one: Any, person: Any, corpus_dir: Path
) -> None:
    """Of twelve trials seven are learned from and five are answered; no hop comes before these."""
    live: dict[str, list[Any]] = {"as_it_was": [], "kept": []}
    _row(one, task_of(one.bundle, corpus_dir), person, 7, FEW, live)
    begun = float(person.side.sessions[0].recording.times[-1]) + 1 / 160
    for (some,) in live.values():
        assert [mark.label != "rest" for mark in some.markers] == [False, True] * 5
        assert 0 <= some.times[0] - (person.shown.ended[6] - begun) < some.hop_s


def test_signal_after_the_first_trials_changes_no_filter(
    one: Any, corpus_dir: Path, tmp_path: Path, run_writer: Callable[..., Path]
) -> None:
    """Another second recording is scored otherwise; what was made of the first is the same."""
    run_writer(tmp_path / "A3" / "A3R1.npz", seed=21)
    run_writer(tmp_path / "A3" / "A3R2.npz", seed=99)
    found = [score_people(one, path, ["A3"], FEW, seconds=None, trials=5) for path in (corpus_dir, tmp_path)]
    rows = [each["per_subject"]["A3"] for each in found]
    assert rows[0]["left_out_cross_entropy"] == rows[1]["left_out_cross_entropy"]
    assert rows[0]["bolder"] == rows[1]["bolder"]
    assert rows[0]["kept"] == rows[0]["personal" if rows[0]["taken"] else "zero_shot"]
    assert set(found[0]["live"]) == {"as_it_was", "kept"}


def test_a_label_that_is_held_over_the_cut_is_nothing_new(
    one: Any, person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answered the last trial that was learned from; a new one in what is left counts."""
    since = float(person.shown.ended[4])

    def said(played: Any, *_: Any) -> Any:
        labels = np.full(len(played), -1)
        labels[(played.times > since - 1) & (played.times < since + 1)] = 1
        labels[(played.times > since + 2) & (played.times < since + 3)] = 1
        return labels

    monkeypatch.setattr(scoring, "decide", said)
    first = _rest(one, person, one.model, since, 1.0)[0]
    assert (first.labels[first.times < since + 1.9] == -1).all()
    assert (first.labels == 1).sum() > 10


def test_a_bundle_of_ones_own_runs_like_any_other(
    one: Any, corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says other things than the bundle it came from, decides by the same settings, and tells its past."""
    grown = lambda *given: replace(adapt(*given), bolder=1.5)  # noqa: E731
    monkeypatch.setattr(writing, "adapt", grown)  # in so few steps a net hardly does
    own = personalise(one, corpus_dir, "A3", tmp_path / "mine", SURE)
    assert own.bundle is not None
    assert own.trials == {"left_fist": 6, "right_fist": 6}
    written, readout = own.bundle, one.bundle.readout
    assert written.graph_bytes != one.bundle.graph_bytes
    assert written.readout.decision == readout.decision
    assert written.readout.temperature == pytest.approx(1.5 * readout.temperature)
    assert written.manifest.provenance["personal"]["from"] == one.bundle.label
    assert written.label == "tiny 0.1+A3"
    assert "A3" in (tmp_path / "mine" / "MODEL_CARD.md").read_text()
    assert personal(written, None)  # a run says that its rates were measured before
    assert not personal(one.bundle, None)
    task = task_of(written, corpus_dir)
    (subject,) = find_people(task, ["A3"])
    assert scorable(one.bundle, task, subject)
    assert not scorable(written, task, subject)  # what it learned from tests it no more
    with pytest.raises(ConfigError, match=r"one person's already: personalise tiny 0\.1"):
        origin(tmp_path / "mine")
    with pytest.raises(ConfigError, match="is there already"):
        personalise(one, corpus_dir, "A3", tmp_path / "mine", SURE)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_nothing_is_written_where_left_out_trials_are_not_for_it(
    one: Any, corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What learned nothing replaces no bundle."""
    monkeypatch.setattr(filters, "learned", lambda model, *_: model)
    assert personalise(one, corpus_dir, "A3", tmp_path / "mine", FEW).bundle is None
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_fitted_is_refused(
    one: Any, person: Any, tiny_bundle: Any, corpus_dir: Path, tmp_path: Path
) -> None:
    """Too few trials, one class, a bundle without its training, several people, people who trained it."""
    recipe, shown = one.run.recipe, person.shown
    with pytest.raises(ConfigError, match="2 labelled trials"):
        adapt(one.model, recipe, shown.take([0, 1]), FEW, 1.0)
    left = np.flatnonzero(shown.labels.numpy() == 1)
    with pytest.raises(ConfigError, match=r"of left_fist\).*: it takes at least 4, of two classes"):
        adapt(one.model, recipe, shown.take(left), FEW, 1.0)
    with pytest.raises(ConfigError, match="export it with --training"):
        origin(tiny_bundle.folder)
    with pytest.raises(ConfigError, match="choose one, --subjects"):
        personalise(one, corpus_dir, None, tmp_path / "x", FEW)
    with pytest.raises(RecordingError, match="A1/A1R1: had a part in the bundle's training"):
        personalise(one, corpus_dir, "A1", tmp_path / "x", FEW)
    with pytest.raises(RecordingError, match="A3: nothing is left behind"):
        score_people(one, corpus_dir, ["A3"], FEW, seconds=9999.0)
    with pytest.raises(ConfigError, match="answers windows, not cues"):
        refuse(one.model, recipe.model_copy(update={"protocol": None}))
    with pytest.raises(ConfigError, match="no filters that could be a person's own"):
        refuse(torch.nn.Identity(), recipe)


def test_weights_of_another_graph_are_refused(one: Any, tiny_bundle: Any, tmp_path: Path) -> None:
    """The training in a bundle must be the one that its graph was made of, whatever it says of itself."""
    from safetensors.torch import load_file, save_file

    keep_training(one.run.recipe.output, tmp_path)
    path = tmp_path / TRAINING / "weights.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "sources" in name)
    save_file({**weights, name: 1.5 * weights[name]}, path)
    with pytest.raises(ConfigError, match="is not the training"):
        origin(tiny_bundle.folder, tmp_path / TRAINING)


def test_one_person_who_cannot_be_read_stops_nobody_else(
    one: Any, tmp_path: Path, run_writer: Callable[..., Path]
) -> None:
    """A recording without a channel, and a damaged one, are told of; the others are scored."""
    with np.load(run_writer(tmp_path / "B1" / "B1R1.npz", seed=31)) as file:
        channels = tuple(file["ch_names"].tolist())
    run_writer(tmp_path / "B2" / "B2R1.npz", seed=32, channels=channels[:-1])
    run_writer(tmp_path / "B3" / "B3R1.npz", seed=33)
    (tmp_path / "B3" / "B3R2.npz").write_bytes(b"no recording")
    found = score_people(one, tmp_path, None, FEW, seconds=None, trials=4)
    assert set(found["per_subject"]) == {"B1", "B3"}
    assert "CP4" in found["skipped"]["B2"]
    task = task_of(one.bundle, tmp_path)
    assert "B3R2" in read_person(one, task, find_people(task, ["B3"])[0]).left_out[0]


def test_a_copy_of_a_recording_is_not_learned_from_twice(
    one: Any, person: Any, corpus_dir: Path, tmp_path: Path
) -> None:
    """Else trials that are left out would be tested by what had learned them."""
    shutil.copytree(corpus_dir / "A3", tmp_path / "A3")
    shutil.copy(tmp_path / "A3" / "A3R1.npz", tmp_path / "A3" / "copy.npz")
    task = task_of(one.bundle, tmp_path)
    again = read_person(one, task, find_people(task, ["A3"])[0])
    assert len(again.shown) == len(person.shown)
    assert again.left_out == ("A3/copy: holds the same samples as A3/A3R1",)


def test_markers_are_renamed_and_namesakes_told_of_on_the_command_line(
    tiny_run: Any, tmp_path: Path, run_writer: Callable[..., Path]
) -> None:
    """Recordings of other words are learned from, and a person called like a training person is told of."""
    path = run_writer(tmp_path / "people" / "A1" / "a.npz", seed=51)
    with np.load(path) as file:
        content = {key: file[key] for key in file.files}
    np.savez(path, **{**content, "event_codes": json.dumps({"0": "T0", "1": "T1", "2": "T2"})})
    runner, bundle = CliRunner(), tmp_path / "bundle"
    assert (
        runner.invoke(app, ["export", str(tiny_run.recipe.output), str(bundle), "--training"]).exit_code == 0
    )
    words = ["personalise", str(bundle), "--data", str(tmp_path / "people"), "--trials", "5", "--steps", "1"]
    refused = runner.invoke(app, words)
    assert refused.exit_code == 2
    assert "--labels OLD=left_fist" in refused.output
    words += ["--labels", "T0=rest", "--labels", "T1=left_fist", "--labels", "T2=right_fist"]
    done = runner.invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found["per_subject"]) == {"A1"}
    assert found["notes"][0].startswith("A1: somebody of this name was learned from")
    mine = [*words[:4], *words[8:], "--steps", "30", "--lr", "0.01", "-o", str(tmp_path / "me"), "--json"]
    made = json.loads(runner.invoke(app, mine).stdout)
    assert made["trials"] == {"left_fist": 3, "right_fist": 3}
    assert made["notes"] == found["notes"]


def test_the_command_scores_people_and_writes_a_bundle(
    tiny_run: Any, corpus_dir: Path, tmp_path: Path
) -> None:
    """Exported with its training, a bundle needs no more than recordings."""
    runner, mine = CliRunner(), tmp_path / "mine"
    words = ["export", str(tiny_run.recipe.output), str(tmp_path / "bundle"), "--training"]
    assert runner.invoke(app, words).exit_code == 0
    common = ["personalise", str(tmp_path / "bundle"), "--data", str(corpus_dir), "--subjects", "A3"]
    scored = runner.invoke(app, [*common, "--trials", "6", "--steps", "2", "--json"])
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["per_subject"]["A3"]["trials"] == 6
    shown = runner.invoke(app, [*common, "--trials", "6", "--steps", "2"])
    assert "A3" in shown.output
    wrong = runner.invoke(app, [*common, "-o", str(mine), "--seconds", "5"])
    assert wrong.exit_code != 0
    assert "leave --seconds and --trials out" in wrong.output
    made = runner.invoke(app, [*common, "-o", str(mine), "--steps", "30", "--lr", "0.01", "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["result"] == load(mine).label == "tiny 0.1+A3"


def test_the_shipped_training_is_what_its_graph_was_made_of() -> None:
    """`bcitrain personalise motor-imagery` goes on from the weights that the bundle decides by."""
    shipped = origin("motor-imagery")  # refuses any others
    assert shipped.run.dsp == shipped.bundle.manifest.input.dsp
