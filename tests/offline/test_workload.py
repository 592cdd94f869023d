"""Properties of the workload model and of how it is fitted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from pydantic import ValidationError  # noqa: E402

from engine.backends.onnxruntime import Config as OnnxRuntime  # noqa: E402
from engine.head import Head, source_head  # noqa: E402
from offline.blocks.convex import logistic  # noqa: E402
from offline.evaluate.played import play  # noqa: E402
from offline.export import export_run  # noqa: E402
from offline.models.workload import BANDS, POWER_FLOOR, Config  # noqa: E402
from offline.probe.features import step_through  # noqa: E402
from offline.probe.tasks import Session  # noqa: E402
from offline.train.data import Side, read_material  # noqa: E402
from offline.train.fitted import Hops, _fit, centred, labelled_hops  # noqa: E402
from offline.train.recipe import Recipe, parse  # noqa: E402
from offline.train.run import Run, load_model  # noqa: E402
from offline.train.train import train  # noqa: E402
from streamer.errors import ConfigError, RecordingError  # noqa: E402
from streamer.sources.recording import load  # noqa: E402

CHANNELS = ("Fz", "Pz")
SFREQ, HOP, REST_S, TASK_S, OWN_S = 64, 32, 24, 12, 8
CLASSES = ("rest", "sums")
PEOPLE = {name: seed for seed, name in enumerate(("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8"))}


def write_person(folder: Path, name: str, seed: int) -> None:
    """Write rest and a task in files of their own: the task quarters the power, people differ by far more."""
    rng = np.random.default_rng(seed)
    own = 10 ** rng.uniform(0, 1.5)
    for number, (label, seconds, loud) in enumerate((("rest", REST_S, 1.0), ("sums", TASK_S, 0.5)), 1):
        data = own * loud * rng.normal(0, 10, (len(CHANNELS), seconds * SFREQ))
        np.savez(
            folder / f"{name}_{number}.npz",
            data=np.round(10 * data).astype(np.int16),
            scale=np.full(len(CHANNELS), 0.1),
            offset=np.zeros(len(CHANNELS)),
            sfreq=float(SFREQ),
            units="uV",
            ch_names=np.array(CHANNELS),
            ch_types=np.array(["eeg"] * len(CHANNELS)),
            events=np.array([[0, seconds * SFREQ, number]], dtype=np.int32),
            event_codes=json.dumps({"1": "rest", "2": "sums"}),
            meta=json.dumps({"task": label}),
        )


def recipe(folder: Path, **changes: Any) -> Recipe:
    """Return a recipe for the people of `write_person`."""
    raw: dict[str, Any] = {
        "card": {"name": "toy", "version": "1", "title": "Toy", "system": "workload"},
        "data": {
            "folders": [{"path": str(folder), "subject": r"P\d"}],
            "train": ["P1-P6"],
            "validate": ["P7-P8"],
            "idle_only": True,
        },
        "classes": list(CLASSES),
        "idle": "rest",
        "sfreq": SFREQ,
        "ch_names": list(CHANNELS),
        "min_present": 1,
        "cut": {"kind": "hops", "own_rest_s": OWN_S},
        "model": {
            "kind": "workload",
            "n_chans": len(CHANNELS),
            "sfreq": SFREQ,
            "hop": HOP,
            "segment": 64,
            "look": 128,
            "bands": [[4, 8], [8, 20]],
        },
        "protocol": {"kind": "windows", "window_s": 2.0},
        "output": str(folder / "run"),
    }
    return parse(raw | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of people."""
    path = tmp_path_factory.mktemp("people")
    for name, seed in PEOPLE.items():
        write_person(path, name, seed)
    return path


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """A finished training on them."""
    return train(recipe(folder), progress=False)


def test_latents_are_the_log_band_powers_of_the_window() -> None:
    """The last latent is what NumPy's transform of the window's own segments gives."""
    config = Config(n_chans=2)
    x = np.random.default_rng(0).normal(0, 10, (2, 1280))
    model = config.build().eval()
    latent = step_through(model, x.T.astype(np.float32))[-1].reshape(len(BANDS), 2)
    window, hann = x[:, -640:], np.hanning(2 * 128 + 1)[1::2]
    starts = range(0, 640 - 128 + 1, 64)
    spectra = [np.fft.rfft(window[:, i : i + 128] * hann) / np.sqrt(np.square(hann).sum()) for i in starts]
    power = np.square(np.abs(spectra)).mean(axis=0)  # of 1 Hz each, (C, 65)
    expected = [np.log(power[:, low:high].mean(axis=1) + POWER_FLOOR) for low, high in BANDS]
    assert np.allclose(latent, expected, atol=1e-4)


def test_before_a_whole_look_the_segments_seen_count() -> None:
    """A steady signal has the same latent from the first whole segment on."""
    times = np.arange(1280) / 128
    latents = step_through(
        Config(n_chans=1).build().eval(), np.sin(2 * np.pi * 10 * times)[:, None].astype(np.float32)
    )
    alpha = latents[:, 3]
    settled = alpha[-1]
    assert abs(alpha[1] - settled) < 0.6, "one half segment and one whole one"
    assert np.allclose(alpha[9:], settled, atol=1e-3)


@pytest.mark.parametrize("wrong", [{"segment": 32}, {"look": 600}, {"look": 64}])
def test_lengths_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    """A segment shorter than the hop would skip samples; a look is a segment and whole hops."""
    with pytest.raises(ValidationError, match=r"segment|look"):
        Config(**wrong)


def test_the_layer_is_the_minimum_of_what_it_says() -> None:
    """The gradient of the penalised, balanced cross-entropy is zero, on columns of unit variance."""
    x, labels = drawn(n_classes=3)
    penalty = 0.3
    weight, bias = (torch.from_numpy(part).double() for part in logistic(x, labels, penalty, 3))
    scale = torch.from_numpy(x.std(axis=0))
    scaled, shift = (weight * scale).requires_grad_(), bias.requires_grad_()
    logits = torch.from_numpy(x) / scale @ scaled.T + shift
    counts = torch.bincount(torch.from_numpy(labels)).double()
    shares = (len(labels) / (3 * counts))[labels]
    each = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
    ((shares * each).mean() + penalty / 2 * scaled.square().sum()).backward()
    assert scaled.grad is not None
    assert shift.grad is not None
    assert torch.cat([scaled.grad.flatten(), shift.grad]).abs().max() < 1e-3


def test_neither_unit_nor_number_of_rows_matters() -> None:
    """Rows twice over give the same layer, and columns in another unit the same logits."""
    x, labels = drawn(n_classes=2)
    weight, bias = logistic(x, labels, 0.3, 2)
    twice = logistic(np.concatenate([x, x]), np.concatenate([labels, labels]), 0.3, 2)
    assert np.allclose(twice[0], weight, atol=2e-3)
    assert np.allclose(twice[1], bias, atol=2e-3)
    other, other_bias = logistic(100 * x, labels, 0.3, 2)
    assert np.allclose(100 * x @ other.T + other_bias, x @ weight.T + bias, atol=1e-2)


def drawn(n_classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(n_classes), [40, 20, 10][:n_classes])
    return rng.normal(0, [1, 3, 0.2, 1], (len(labels), 4)) + labels[:, None] * [1, 0, 0.2, 0], labels


def test_own_rest_tells_what_nobody_elses_does(run: Run) -> None:
    """Where people differ more than states, only the layer that is centred on their own rest reads them."""
    settings = run.recipe
    model, material = load_model(run), read_material(settings)
    known = labelled_hops(model, material.train, settings) + labelled_hops(model, material.validate, settings)
    assert balanced(model.centred, [centred(one, settings) for one in known]) > 0.95
    assert balanced(model.head, known) < 0.8


def balanced(layer: Any, people: Sequence[Hops | None]) -> float:
    """Return the balanced accuracy of a layer over people."""
    hops = [one for one in people if one is not None]
    latents, labels = (
        np.concatenate(parts) for parts in zip(*((h.latents, h.labels) for h in hops), strict=True)
    )
    with torch.no_grad():
        found = layer(torch.from_numpy(latents)).argmax(dim=-1).numpy()
    return float(np.mean([(found[labels == k] == k).mean() for k in (0, 1)]))


def test_centring_commutes_with_the_layer(run: Run, folder: Path) -> None:
    """The engine's head, moved to a mean, says of a latent what the layer says of it minus that mean."""
    model = load_model(run)
    latents = step_through(model, load(folder / "P7_1.npz").data)
    mean = latents[:10].mean(axis=0)
    weight, bias = (part.detach().double().numpy() for part in (model.centred.weight, model.centred.bias))
    moved = Head(weight, bias).centred_on(mean.astype(np.float64)).logits(latents)
    with torch.no_grad():
        expected = model.centred(torch.from_numpy(latents - mean)).numpy()
    assert np.allclose(moved, expected, atol=1e-4)


def test_the_own_rest_is_not_learned_from(folder: Path) -> None:
    """Of the first seconds of rest the mean is taken away from all other hops, and they are left out."""
    settings = recipe(folder)
    age_s = np.array([4.0, 8.0, 8.5, 4.0, 8.0])
    hops = Hops(np.arange(5, dtype=np.float32)[:, None], np.array([0, 0, 0, 1, 1]), age_s)
    found = centred(hops, settings)
    assert found is not None
    assert found.latents[:, 0].tolist() == [1.5, 2.5, 3.5]
    assert found.labels.tolist() == [0, 1, 1]
    assert centred(hops.where(hops.labels == 1), settings) is None, "nobody's rest is guessed"


def test_the_age_of_rest_goes_on_in_the_next_recording(run: Run) -> None:
    """Seconds of a class are counted over a person's recordings, and every class has a count of its own."""
    side = read_material(run.recipe).validate
    twice = Side(side.sessions * 2, side.stretches * 2)
    one, two = (labelled_hops(load_model(run), some, run.recipe)[0] for some in (side, twice))
    assert [one.age_s[one.labels == k].max() for k in (0, 1)] == [REST_S, TASK_S]
    assert [two.age_s[two.labels == k].max() for k in (0, 1)] == [2 * REST_S, 2 * TASK_S]


def logistic_into(layer: torch.nn.Linear) -> Callable[[NDArray[np.float32], NDArray[np.int64]], None]:
    """A fit of the layer in one step."""

    def fit_layer(latents: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        found = logistic(latents, labels, 0.01, 2)
        with torch.no_grad():
            for place, value in zip((layer.weight, layer.bias), found, strict=True):
                place.copy_(torch.from_numpy(value))

    return fit_layer


def test_a_few_validation_people_do_not_set_the_temperature_alone(folder: Path) -> None:
    """Labels without a meaning are not believed because the people who validate happen to fit them."""
    rng = np.random.default_rng(0)
    settings = recipe(folder, classes=list(CLASSES))

    def person(labels: NDArray[np.int64] | None = None) -> Hops:
        latents = rng.normal(size=(40, 4)).astype(np.float32)
        labels = rng.integers(0, 2, 40) if labels is None else labels
        return Hops(latents, labels, np.arange(40.0))

    known = [person() for _ in range(10)]
    layer = torch.nn.Linear(4, 2)

    fit_layer = logistic_into(layer)
    fit_layer(*(np.concatenate(parts) for parts in zip(*((h.latents, h.labels) for h in known), strict=True)))
    lucky = person()
    with torch.no_grad():
        lucky = Hops(
            lucky.latents, layer(torch.from_numpy(lucky.latents)).argmax(dim=-1).numpy(), lucky.age_s
        )
    sizes = []
    for people in (known, known[:4]):  # four are too few to be left out in turn
        _fit(fit_layer, layer, people, [lucky], settings)
        sizes.append(float(layer.weight.detach().norm()))
    assert sizes[0] < sizes[1] / 2


def test_a_training_is_played_as_it_was_fitted(run: Run, folder: Path, tmp_path: Path) -> None:
    """Exported and played through the engine, the bundle says what the model says of the whole recording."""
    bundle = export_run(run, tmp_path / "bundle")
    recording = load(folder / "P8_2.npz")
    with OnnxRuntime().open(bundle) as backend:
        played = play(bundle, backend, Session("P8", "P8_2", recording, ""))
    model = load_model(run)
    latents = step_through(model, recording.data)
    with torch.no_grad():
        logits = model.head(torch.from_numpy(latents)) / run.temperature
    assert np.allclose(played.log_probs, logits.log_softmax(dim=-1).numpy(), atol=1e-4)
    source = source_head(bundle)
    assert source.centred is not None
    assert np.allclose(source.centred.weight, model.centred.weight.detach())
    assert np.allclose(source.head.logits(latents), logits * run.temperature, atol=1e-3)


def test_another_cut_or_another_model_is_refused(folder: Path) -> None:
    """What is fitted in one step learns from hops, hops teach nothing else, and need an idle class."""
    raw = recipe(folder).model_dump(mode="json", by_alias=True)
    with pytest.raises(ConfigError, match="cut must be hops, not crops"):
        parse(raw | {"cut": {"kind": "crops", "length_s": 8.0, "settle_s": 4.0}})
    with pytest.raises(ConfigError, match="which class that is"):
        parse(raw | {"idle": None})
    net = {"kind": "motor_imagery", "n_chans": len(CHANNELS), "n_classes": 2}
    with pytest.raises(ConfigError, match="motor_imagery learns from crops"):
        parse(raw | {"model": net})


def test_rest_too_short_is_refused(folder: Path, tmp_path: Path) -> None:
    """Where the own rest is all the rest there is, the centred layer has none to learn."""
    cut = {"kind": "hops", "own_rest_s": REST_S}
    with pytest.raises(RecordingError, match=r"lower cut\.own_rest_s"):
        train(recipe(folder, cut=cut, output=str(tmp_path / "run")), progress=False)


def test_what_is_learned_by_heart_does_not_make_a_layer_sure(folder: Path) -> None:
    """Labels without a meaning are all known, and none surely: people scale a layer not fitted on them."""
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 1, 1])
    people = [Hops(rng.normal(size=(4, 80)).astype(np.float32), labels, np.arange(4.0)) for _ in range(12)]
    layer = torch.nn.Linear(80, 2)
    _fit(logistic_into(layer), layer, people[:10], people[10:], recipe(folder))
    with torch.no_grad():
        said = layer(torch.from_numpy(np.concatenate([one.latents for one in people[:10]])))
    assert (said.argmax(dim=1).numpy() == np.tile(labels, 10)).all()
    assert said.softmax(dim=1).max() < 0.75
