"""A decoder adapted to one person by gradient: what moves, what it may know, what is refused."""

from __future__ import annotations

import json
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
from offline import personal_filters  # noqa: E402
from offline.cli import app  # noqa: E402
from offline.data.trials import Prepared  # noqa: E402
from offline.evaluate.recordings import find_people, task_of  # noqa: E402
from offline.evaluate.run import scorable  # noqa: E402
from offline.export_graph import check_parity, probes, streamlined  # noqa: E402
from offline.personal_filters import (  # noqa: E402
    Settings,
    Shown,
    _cost,
    _of_rest,
    _spans,
    _with_mirrored,
    adapt,
    learned,
    shown_by,
)
from offline.personalise import TRAINING, keep_training, origin, personalise_one, read_person, score_people  # noqa: E402
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
    """Somebody whom it does not know."""
    task = task_of(one.bundle, corpus_dir)
    subject = find_people(task, ["A3"])[0]
    return read_person(one, task, scorable(one.bundle, task, subject))


def test_filters_over_electrodes_move_and_nothing_else(one: Any, person: Any) -> None:
    """Of the copy; the model that was given is as it was."""
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    model = learned(one.model, one.run.recipe, person.shown, FEW)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
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
    first = next(span for span in stretch.spans if span[2] and span[0] >= one.model.left_context)
    hop = (first[0] + round(recipe.protocol.at_s * recipe.sfreq)) // one.model.hop - 1
    torch.testing.assert_close(windows["logits"][0, -1], streamed["logits"][0, hop], atol=1e-4, rtol=1e-4)
    assert recipe.classes[int(person.shown.labels[0])] != recipe.idle


def test_what_was_learned_shows(one: Any, person: Any) -> None:
    """Trials that were learned from are answered more surely, and the same trials make the same filters."""
    recipe = one.run.recipe
    first, second = (adapt(one.model, recipe, person.shown, SURE) for _ in range(2))
    assert first.after < first.before
    assert first.better
    assert (first.before, first.after, first.bolder) == (second.before, second.after, second.bolder)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])


def test_a_trial_left_out_has_no_part_in_its_own_answer(one: Any, person: Any) -> None:
    """Labels that nothing in the signal tells are learned by heart, and left-out ones are guessed."""
    rng, recipe = np.random.default_rng(0), one.run.recipe.model_copy(update={"augment": Augment()})
    noise = replace(
        person.shown.first(0),
        x=torch.from_numpy(rng.normal(size=(16, *person.shown.x.shape[1:])).astype(np.float32)),
        labels=torch.from_numpy(rng.permutation(np.repeat([1, 2], 8))),
        times=np.arange(16.0),
    )
    assert not len(noise.rest)
    came = adapt(one.model, recipe, noise, Settings(steps=100, lr=3e-2))
    assert _cost(came.model, recipe, noise) < 0.5
    assert came.after > 0.6  # log 2 is a guess


def test_a_mirrored_person_gets_mirrored_filters(one: Any, person: Any) -> None:
    """The trials and their mirror images are learned from alike: swapped hemispheres change nothing."""
    recipe = one.run.recipe
    both = _with_mirrored(person.shown, recipe)
    n = len(person.shown)
    swapped = both.take(range(n, 2 * n))
    assert not torch.equal(swapped.labels, person.shown.labels)
    models = [learned(one.model, recipe, some, FEW) for some in (person.shown, swapped)]
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(value, models[1].state_dict()[name], atol=1e-5, rtol=1e-4)


def test_what_was_said_of_rest_is_held_on_to(one: Any, person: Any) -> None:
    """A net that only learns its trials grows bolder in rest; held, it hardly does."""
    recipe, shown = one.run.recipe, person.shown
    assert len(shown.rest) == 10  # of 12; two begin a recording, before the net is warm
    models = [
        learned(one.model, recipe, shown, SURE.model_copy(update={"hold": hold})) for hold in (0.0, 10.0)
    ]
    with torch.inference_mode():
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


def test_who_grows_bolder_in_rest_is_told_so(one: Any, person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By as much as the temperature must take back: twice the logits, twice the temperature."""
    monkeypatch.setattr(personal_filters, "learned", lambda model, *_: Doubled(model))
    assert adapt(one.model, one.run.recipe, person.shown, FEW).bolder == pytest.approx(2.0)
    monkeypatch.setattr(personal_filters, "learned", lambda model, *_: model)
    assert adapt(one.model, one.run.recipe, person.shown, FEW).bolder == 1.0


def test_the_first_trials_come_with_the_rest_before_them(person: Any) -> None:
    """And with nothing that was not over yet when the last of them was answered."""
    some = person.shown.first(5)
    assert len(some) == 5
    assert 0 < len(some.rest) < len(person.shown.rest)
    assert some.rest_times.max() <= some.times.max()
    assert torch.equal(some.rest, person.shown.rest[: len(some.rest)])


def test_cues_without_a_duration_last_until_the_next() -> None:
    """Markers of an LSL stream tell no duration: what was asked for ends when something else is."""
    one = Prepared("A", np.zeros((1000, 3), np.float32), ((700, 700, 1), (100, 100, 0), (400, 500, 2)))
    assert list(_spans(one)) == [(100, 400, 0), (400, 500, 2), (700, 1000, 1)]


def test_what_comes_after_the_first_trials_changes_no_filter(
    one: Any, corpus_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scored are later cues only, by a model made of the first trials only."""
    import offline.personalise as module

    seen: list[int] = []

    def spy(model: Any, recipe: Any, shown: Shown, settings: Settings) -> Any:
        seen.append(len(shown))
        return adapt(model, recipe, shown, settings)

    monkeypatch.setattr(module, "adapt", spy)
    found = score_people(one, corpus_dir, ["A3"], FEW, seconds=None, trials=5)
    assert seen == [5]
    row = found["per_subject"]["A3"]
    assert row["trials"] == 5
    assert row["refitted"] == (row["personal"] if row["taken"] else row["zero_shot"])
    assert round(row["zero_shot"] * 7, 3) == round(row["zero_shot"] * 7)  # of the 12 trials 7 are left


def test_a_bundle_of_ones_own_runs_like_any_other(one: Any, corpus_dir: Path, tmp_path: Path) -> None:
    """It says other things than the bundle it came from, decides by the same settings, and tells its past."""
    came, counts, written = personalise_one(one, corpus_dir, "A3", tmp_path / "mine", SURE)
    assert written is not None
    assert came.better
    assert counts == {"left_fist": 6, "right_fist": 6}
    assert written.graph_bytes != one.bundle.graph_bytes
    assert written.readout.decision == one.bundle.readout.decision
    assert written.readout.temperature == pytest.approx(came.bolder * one.bundle.readout.temperature)
    adapted = written.manifest.provenance["personal"]
    assert adapted["from"] == one.bundle.label
    assert written.label == "tiny 0.1+A3"
    assert "A3" in (tmp_path / "mine" / "MODEL_CARD.md").read_text()


def test_nothing_is_written_where_left_out_trials_speak_against_it(
    one: Any, corpus_dir: Path, tmp_path: Path
) -> None:
    """Steps that are far too long make it worse, and the bundle is kept."""
    _, _, written = personalise_one(one, corpus_dir, "A3", tmp_path / "mine", Settings(steps=5, lr=50.0))
    assert written is None
    assert not (tmp_path / "mine").exists()


def test_what_cannot_be_adapted_is_refused(
    one: Any, person: Any, tiny_bundle: Any, corpus_dir: Path, tmp_path: Path
) -> None:
    """Too few trials, one class, a bundle without its training, several people, people who trained it."""
    recipe, shown = one.run.recipe, person.shown
    with pytest.raises(ConfigError, match="2 labelled trials"):
        adapt(one.model, recipe, shown.take([0, 1]), FEW)
    left = np.flatnonzero(shown.labels.numpy() == 1)
    with pytest.raises(ConfigError, match="of left_fist\\): it takes at least 4, of two classes"):
        adapt(one.model, recipe, shown.take(left), FEW)
    with pytest.raises(ConfigError, match="export it with --training"):
        origin(tiny_bundle.folder)
    with pytest.raises(ConfigError, match="choose one, --subjects"):
        personalise_one(one, corpus_dir, None, tmp_path / "x", FEW)
    with pytest.raises(RecordingError, match="No recording of A1"):
        personalise_one(one, corpus_dir, "A1", tmp_path / "x", FEW)
    with pytest.raises(RecordingError, match="nothing is left behind"):
        score_people(one, corpus_dir, ["A3"], FEW, seconds=9999.0)
    other = one.run.recipe.model_copy(update={"protocol": None})
    with pytest.raises(ConfigError, match="answers windows, not cues"):
        shown_by(one.model, person.side, other)
    with pytest.raises(ConfigError, match="no filters that could be a person's own"):
        shown_by(torch.nn.Identity(), person.side, recipe)


def test_a_training_of_another_seed_is_refused(one: Any, tiny_bundle: Any, tmp_path: Path) -> None:
    """The weights in a bundle's training must be those its graph was made of."""
    keep_training(one.run.recipe.output, tmp_path)
    described = json.loads((tmp_path / TRAINING / "run.json").read_text())
    described["recipe"]["seed"] += 1
    (tmp_path / TRAINING / "run.json").write_text(json.dumps(described))
    with pytest.raises(ConfigError, match="is not the training"):
        origin(tiny_bundle.folder, tmp_path / TRAINING)


def test_the_command_scores_people_and_writes_a_bundle(
    tiny_run: Any, corpus_dir: Path, tmp_path: Path, run_writer: Callable[..., Path]
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
    made = runner.invoke(app, [*common, "-o", str(mine), "--steps", "30", "--lr", "0.01"])
    assert made.exit_code == 0, made.output
    assert load(mine).label == "tiny 0.1+A3"
    wrong = runner.invoke(app, [*common, "-o", str(mine), "--seconds", "5"])
    assert wrong.exit_code != 0
    assert "leave --seconds and --trials out" in wrong.output


def test_the_shipped_training_is_what_its_graph_was_made_of() -> None:
    """`bcitrain personalise motor-imagery` goes on from the weights that the bundle decides by."""
    shipped = origin("motor-imagery")
    model = streamlined(shipped.model, shipped.run.recipe.model.n_chans)
    graph = shipped.bundle.manifest.graph
    signals = probes(model, shipped.run.recipe.model.n_chans, graph)
    check_parity(model, shipped.bundle.graph_bytes, graph, signals)
    assert shipped.run.dsp == shipped.bundle.manifest.input.dsp
