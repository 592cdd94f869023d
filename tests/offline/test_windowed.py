"""braindecode's nets by name: the same answers as on whole windows, read off linearly, live and exported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from braindecode_at_hand import braindecode_at_hand

torch = pytest.importorskip("torch")

from engine.backends.onnxruntime import Config as OnnxRuntime  # noqa: E402
from engine.bundle import FORMAT  # noqa: E402
from engine.pipeline import Pipeline  # noqa: E402
from offline import models  # noqa: E402
from offline.braindecode_nets import channels  # noqa: E402
from offline.export_graph import check_parity, export_step, probes, step_graph  # noqa: E402
from offline.models.windowed import SMALL, Config  # noqa: E402
from streamer.errors import BundleError, ConfigError, MissingDependency  # noqa: E402
from streamer.types import StreamInfo, make_chunk  # noqa: E402

SITES = ("C3", "Cz", "C4", "Pz")
SHALLOW = SMALL.model_copy(
    update={
        "net": "ShallowFBCSPNet",
        "params": {"n_filters_time": 4, "n_filters_spat": 4, "pool_time_length": 20, "pool_time_stride": 5},
    }
)
SLIDING = {
    "n_windows": 3,
    "conv_block_n_filters": 4,
    "conv_block_pool_size_1": 4,
    "conv_block_pool_size_2": 2,
}
ATCNET = SMALL.model_copy(update={"net": "ATCNet", "params": SLIDING})  # two layers give its logits
CROPS = SHALLOW.model_copy(update={"params": {**SHALLOW.params, "final_conv_length": 2}})


@pytest.fixture(autouse=True)
def _braindecode() -> None:
    braindecode_at_hand()


def built(config: Config) -> Any:
    torch.manual_seed(0)
    return config.build().eval()


def outputs(model: Any, x: Any) -> dict[str, Any]:
    with torch.inference_mode():
        result: dict[str, Any] = model(x, model.init_state(len(x)))[0]
    return result


def signal(n_hops: int, seed: int = 1, scale: float = 1.0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, SMALL.n_chans, n_hops * SMALL.hop, generator=generator)


def test_every_hop_is_answered_as_its_window_alone() -> None:
    """The logits of a hop are those of the bare net on the window up to it, silence before the start."""
    model, x = built(SMALL), signal(7)
    padded = torch.nn.functional.pad(x, (SMALL.window - SMALL.hop, 0))
    logits = outputs(model, x)["logits"]
    for hop in range(7):
        window = padded[..., hop * SMALL.hop : hop * SMALL.hop + SMALL.window]
        with torch.inference_mode():
            assert torch.allclose(logits[:, hop], model.net(window), atol=1e-6)
            assert torch.equal(model.net(window), model.last(window))


@pytest.mark.parametrize(
    "config", [SMALL, SHALLOW, ATCNET, CROPS], ids=["EEGNet", "Shallow", "ATCNet", "crops"]
)
def test_logits_are_linear_in_the_latent(config: Config) -> None:
    """An affine map fitted on some windows' latents gives the logits of others, whatever their size."""
    model = built(config)
    assert model.readout.calls, "the latent is not the logits themselves"
    n = model.n_latent + 20
    fitted = outputs(model, signal(n))
    a, b = (fitted[name].flatten(0, 1).double().numpy() for name in ("latent", "logits"))
    solution = np.linalg.lstsq(np.c_[a, np.ones(len(a))], b, rcond=1e-9)[0]
    other = outputs(model, signal(12, seed=2, scale=3.0))
    c, d = (other[name].flatten(0, 1).double().numpy() for name in ("latent", "logits"))
    assert np.abs(np.c_[c, np.ones(len(c))] @ solution - d).max() < 1e-3 * np.ptp(d, axis=0).max()


def test_a_net_without_a_linear_end_reads_its_logits() -> None:
    """Where no layers give the logits linearly, the latent is the logits."""
    model = built(SMALL.model_copy(update={"net": "BDTCN", "params": {"n_filters": 200}}))
    found = outputs(model, signal(2))
    assert not model.readout.calls
    assert torch.equal(found["latent"], found["logits"])


def test_a_name_that_is_none_is_answered_with_the_nearest() -> None:
    """An unknown net or setting is an error that names what was probably meant."""
    with pytest.raises(ConfigError, match="no net 'eegnett'; did you mean EEGNet"):
        built(SMALL.model_copy(update={"net": "eegnett"}))
    with pytest.raises(ConfigError, match="no setting 'kernel_lenght'; did you mean kernel_length"):
        built(SMALL.model_copy(update={"params": {"kernel_lenght": 9}}))
    with pytest.raises(ConfigError, match="sets n_times of EEGNet, which follows from"):
        built(SMALL.model_copy(update={"params": {"n_times": 9}}))


def test_a_window_that_a_net_cannot_take_is_refused() -> None:
    """A net's own complaint about a window comes with what was asked of it."""
    with pytest.raises(
        ConfigError, match="ShallowFBCSPNet for 4 channels and windows of 64 samples at 64 Hz"
    ):
        built(SMALL.model_copy(update={"net": "ShallowFBCSPNet", "params": {}}))
    with pytest.raises(ConfigError, match=r"Set model.window .* model.params \(n_filters_time, "):
        built(SMALL.model_copy(update={"net": "ShallowFBCSPNet", "params": {}}))


@pytest.mark.parametrize("net", ["Labram", "CBraMod"])
def test_a_window_of_no_whole_patches_is_answered_with_those_that_are(net: str) -> None:
    """Which net, which window, what it complained of, and the windows it takes; one of these it takes."""
    config = SMALL.model_copy(update={"net": net, "params": {}, "window": 480, "sfreq": 160.0})
    with pytest.raises(ConfigError, match=r"480 samples at 160 Hz: \w+Error: .*200") as error:
        built(config)
    assert "set model.window to 400 (2.5 s) or 600 (3.75 s), as cut.window_s" in str(error.value)


def test_a_net_that_is_no_classifier_is_refused() -> None:
    """A net that answers with anything but a number per class is an error with the shape."""
    params = {"n_layer": 1, "return_encoder_output": True}
    config = SMALL.model_copy(update={"net": "CBraMod", "params": params, "window": 200})
    with pytest.raises(ConfigError, match="answers 2 windows with"):
        built(config)


def test_settings_that_contradict_each_other_are_refused() -> None:
    """A window shorter than a hop, and names for other channels, are errors."""
    for update, said in (({"window": 8}, "at least hop"), ({"ch_names": ("C3",)}, "lists 1 channels")):
        with pytest.raises(ValueError, match=said):
            Config.model_validate(SMALL.model_dump() | update)


def test_electrodes_are_where_they_are() -> None:
    """Nets that ask are told the sites in metres: x to the right ear, y to the nose, z to the vertex."""
    left, top, unknown = (one["loc"][:3] for one in channels(("C3", "Cz", "EMG7"), 160.0))
    assert left[0] < -0.04
    assert abs(top[0]) < 0.002
    assert 0.08 < top[2] < 0.1
    assert np.isnan(unknown).all()


def test_left_context_is_known_without_the_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe is checked where braindecode is not installed; building says what to install."""
    context = built(SMALL).left_context
    monkeypatch.setitem(sys.modules, "braindecode.models", None)
    assert models.left_context(SMALL) == context == SMALL.window - SMALL.hop
    with pytest.raises(MissingDependency, match="baselines"):
        SMALL.build()


def test_pretrained_weights_out_of_reach_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the library, or without the weights, the error says which and what to do."""
    config = SMALL.model_copy(update={"pretrained": str(tmp_path)})
    with monkeypatch.context() as patch:
        patch.setattr("offline.braindecode_nets.find_spec", lambda name: None)
        with pytest.raises(MissingDependency, match=r"braindecode\[hub\]"):
            config.build()
    pytest.importorskip("huggingface_hub")
    with pytest.raises(ConfigError, match="Cannot read the weights"):
        config.build()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_pretrained_weights_are_where_training_begins(tmp_path: Path, n_classes: int) -> None:
    """An encoder that was saved gives its weights; the layer that names the classes is new."""
    pytest.importorskip("huggingface_hub")
    small = {"net": "CBraMod", "n_chans": 2, "window": 200, "sfreq": 200.0}
    params = {"n_layer": 1, "dim_feedforward": 8, "nhead": 2}
    encoder = {"return_encoder_output": True}
    models_ = braindecode_at_hand()
    saved = models_.CBraMod(n_outputs=n_classes, n_chans=5, n_times=400, sfreq=200.0, **params, **encoder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        saved.save_pretrained(tmp_path)
    torch.manual_seed(9)
    config = SMALL.model_copy(
        update={**small, "params": {"return_encoder_output": False}, "pretrained": str(tmp_path)}
    )
    ours, theirs = config.build().net.state_dict(), saved.state_dict()
    new = set(ours) - set(theirs)
    assert new
    assert all(name.startswith("final_layer") for name in new)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_torch_cannot_write_is_refused_in_words() -> None:
    """A step that branches on values is refused with torch's reason, not with a traceback of its own."""

    class Branching(torch.nn.Module):
        hop, left_context, delay = 2, 0, 0

        def init_state(self, batch: int) -> tuple[()]:
            return ()

        def forward(self, x: Any, state: Any) -> Any:
            return {"logits": x.mean(-1)[:, None] if x.sum() > 0 else -x.mean(-1)[:, None]}, state

    with pytest.raises(BundleError, match=r"torch cannot write the model .*data-dependent"):
        step_graph(Branching(), 3)


def trained() -> Any:
    """A net with norms that have seen data, still in training mode, as an interrupted script leaves it."""
    model = built(SMALL).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for seed in range(3):
        loss = model.last(signal(4, seed)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def bundle_of(model: Any, folder: Path) -> Any:
    from offline.export import write

    content, graph = export_step(model, SMALL.n_chans)
    check_parity(model, content, graph, probes(model, SMALL.n_chans, graph))
    manifest = {
        "format": FORMAT,
        "name": "windowed",
        "version": "1",
        "title": "a window",
        "system": "test",
        "input": {
            "stype": "EEG",
            "sfreq": model.config.sfreq,
            "unit": "uV",
            "ch_names": SITES,
            "min_present": len(SITES),
            "dsp": [],
        },
        "graph": graph.model_dump(mode="json"),
        "readout": {"classes": ["a", "b", "c"], "logits": "logits", "latent": "latent"},
        "provenance": {},
    }
    return write(json.loads(json.dumps(manifest)), content, folder)


ENCODER = {"net": "CBraMod", "params": {"n_layer": 1, "return_encoder_output": False}, "sfreq": 200.0}


@pytest.mark.parametrize(
    "update",
    [
        {},
        ENCODER | {"window": 200, "hop": 50},
        ENCODER | {"net": "Labram", "params": {"num_layers": 1}, "window": 200, "hop": 50, "ch_names": SITES},
        {"net": "EEGConformer", "params": {}, "sfreq": 200.0, "window": 400, "hop": 100},
    ],
    ids=["EEGNet", "CBraMod", "Labram", "EEGConformer"],
)
def test_nets_of_others_run_many_streams_a_row_each(update: dict[str, Any], tmp_path: Path) -> None:
    """Their graphs take any number of rows, which the runtime knows of every output, and open as bundles."""
    bundle = bundle_of(built(SMALL.model_copy(update=update)), tmp_path / "bundle")
    assert bundle.manifest.graph.rows == "free"
    for rows in (1, 3):
        with OnnxRuntime().open(bundle.batched(rows)) as backend:
            assert backend.graph.outputs[0].shape == (rows, 1, SMALL.n_classes)


def test_a_bundle_answers_live_as_torch_on_the_window(tmp_path: Path) -> None:
    """Through the engine's pipeline, chunk by chunk, the last hop's logits are torch's on that window."""
    model = trained().eval()
    bundle = bundle_of(model, tmp_path / "bundle")
    info = StreamInfo("s", "s", "EEG", SMALL.sfreq, SITES, ("eeg",) * 4, "uV")
    x = np.random.default_rng(3).normal(size=(200, 4)).astype(np.float32)
    heard: list[Any] = []

    def keep(_: Any, found: Any) -> None:
        heard.append(found["logits"].copy())

    with OnnxRuntime().open(bundle) as backend:
        pipeline = Pipeline(bundle, backend, info, observe=keep)
        for start in range(0, 200, 7):
            rows = x[start : start + 7]
            list(pipeline.process(make_chunk(rows, start, np.arange(start, start + len(rows)) / SMALL.sfreq)))
    end = 200 // SMALL.hop * SMALL.hop
    window = torch.from_numpy(x[end - SMALL.window : end].T[None].copy())
    with torch.inference_mode():
        wanted = model.net(window)[0]
    assert len(heard) == 200 // SMALL.hop
    assert np.abs(heard[-1].reshape(-1) - wanted.numpy()).max() < 1e-5
