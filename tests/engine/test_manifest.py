"""A manifest says what a bundle puts out, and contradicts itself nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_codec import HOP, N_CODEBOOKS, write_decoder, write_tokenizer

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import load
from engine.manifest import InputContract
from streamer.errors import BundleError


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": {"latent": "latent"}}, "exactly one of readout, tokens, signal, features"),
        ({"tokens": None}, "exactly one of readout, tokens, signal, features"),
        ({"tokens.codes": "words"}, "tokens.codes 'words' is not among the outputs"),
        ({"tokens.gain": "volume"}, "tokens.gain 'volume' is not among the outputs"),
        ({"tokens.gain": None}, "tokens.gain and tokens.n_gains go together"),
        ({"tokens.n_codebooks": 2}, "2 codebooks, but the codes have 3"),
        ({"tokens.codec": "xyz"}, "tokens.codec"),
        ({"input.ch_names": ["C3"]}, "must be empty for a per_channel bundle"),
        ({"input.per_channel": False}, "must be empty for a per_channel bundle, and only for one"),
        ({"input.unit": "codes"}, "input.unit 'codes' goes with signal"),
        ({"graph.input.shape": [2, 1, HOP]}, "channels and hop say (1, 1, 12)"),
        ({"graph.state": [{"input": "s", "output": "t", "shape": [2, 1]}]}, "s has more than one row"),
    ],
)
def test_a_tokenizer_that_contradicts_itself_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """Each fault is named."""
    with pytest.raises(BundleError) as error:
        load(write_tokenizer(tmp_path / "bundle", **change))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"signal.output": "wave"}, "signal.output 'wave' is not among the outputs"),
        ({"signal.sfreq": 200.0}, "signal.sfreq is 200 Hz, but 12 samples a frame"),
        ({"signal.n_gains": None}, "channels and hop say (1, 3, 1)"),
        ({"input.unit": "uV"}, "input.unit 'codes' goes with signal"),
    ],
)
def test_a_decoder_that_contradicts_itself_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """Each fault is named."""
    with pytest.raises(BundleError) as error:
        load(write_decoder(tmp_path / "bundle", **change))
    assert said in str(error.value)


@pytest.mark.parametrize("n_chans", [1, 5])
def test_a_bundle_for_any_montage_takes_the_size_of_a_stream(tmp_path: Path, n_chans: int) -> None:
    """Sized for so many channels, every tensor has so many rows, and the graph compiles so."""
    names = tuple(f"E{i}" for i in range(n_chans))
    bundle = load(write_tokenizer(tmp_path / "bundle"))
    sized = bundle.sized(names)
    graph = sized.manifest.graph
    shapes = [graph.input.shape, *(t.shape for t in graph.outputs), *(s.shape for s in graph.state)]
    assert shapes == [
        (n_chans, 1, HOP), (n_chans, 1, N_CODEBOOKS), (n_chans, 1), (n_chans, 1, 2), (n_chans, 1),
    ]  # fmt: skip
    assert sized.manifest.input.ch_names == names
    assert bundle.manifest.graph.input.shape == (1, 1, HOP)
    with OnnxRuntime().open(sized) as backend:
        assert backend.graph == graph


def test_bands_are_inputs_of_the_graph() -> None:
    """A list that splits channels into bands makes so many more rows of the graph's input."""
    split = {"kind": "filterbank", "bands": [[1, 4], [4, 30]]}
    dsp = [split, {"kind": "align", "groups": 2}]
    contract = {"sfreq": 100.0, "unit": "uV", "ch_names": ["C3", "C4"]}
    assert InputContract.model_validate(contract).n_inputs == 2
    assert InputContract.model_validate({**contract, "dsp": dsp}).n_inputs == 4


def test_a_bundle_with_a_montage_keeps_its_size(toy: Any) -> None:
    """A bundle that names its channels is the same for every stream."""
    assert toy.sized(("C3",)) is toy
