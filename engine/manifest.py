"""The content of ``bundle.json``: what a bundle is fed, what it computes, and what it puts out.

A bundle puts out one of four things, and its manifest has one of four blocks that says which::

    readout     decisions                    bcistream run
    tokens      codes of a codec             bcistream tokens
    signal      the waveform behind codes    bcistream listen
    features    latents alone                bcistream tokens, with publish: latent
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from engine.decision import AnyDecision, DecisionConfig
from engine.operating import OperatingPoint
from streamer.components import Config, union
from streamer.dsp import StepConfig

if TYPE_CHECKING:
    AnyStep = StepConfig
else:
    AnyStep = union("streamer.dsp")

MANIFEST = "bundle.json"
FORMAT = 1
MAX_CHANNELS = 512  # of a bundle for any montage: twice the largest cap
FREE_DIMENSION = "channels"  # what the first dimension of such a bundle is called in its graph
FREE_ROWS = "batch"  # and that of a graph which takes any number of streams, one a row
MAX_ROWS = 1024
RATE_TOLERANCE = 1e-6  # 250 Hz in hops of 12 is no finite decimal
PRODUCTS = ("readout", "tokens", "signal", "features")
CODES_UNIT = "codes"

Dtype = Literal["float32", "int64", "bool"]
CodecId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _plain(name: str) -> str:
    """Accept only a plain file name: a manifest must not reach outside its folder."""
    if name != Path(name).name or name in {"", ".", "..", MANIFEST} or "\\" in name:
        raise ValueError(f"a file of the bundle is a plain name, not {name!r}")
    return name


FileName = Annotated[str, AfterValidator(_plain)]


class Tensor(Config):
    """One tensor of the step graph; the shape is fixed, batch first."""

    name: str
    shape: tuple[PositiveInt, ...]
    dtype: Dtype = "float32"


class State(Config):
    """One state tensor: enters as `input`, leaves as `output`, and is zero at the start."""

    input: str
    output: str
    shape: tuple[PositiveInt, ...]
    dtype: Dtype = "float32"


class Graph(Config):
    """The step graph and its time geometry, all in samples at ``input.sfreq``.

    ``hop`` samples go in per step; an output depends on ``left_context`` samples before its own hop at
    most, and describes the signal ``delay`` samples ago.  A graph that is not ``bounded`` has a recurrence
    that never quite forgets; its ``left_context`` is what its convolutions see.  ``rows`` says whether the
    first dimension is "free", for many streams at once (`engine.bundle.Bundle.batched`), or one stream's; the
    shapes here are those of one.
    """

    file: FileName = "step.onnx"
    input: Tensor
    outputs: tuple[Tensor, ...]
    state: tuple[State, ...] = ()
    hop: PositiveInt
    left_context: Annotated[int, Field(ge=0)]
    delay: Annotated[int, Field(ge=0)] = 0
    bounded: bool = True
    rows: Literal["free", "one"] = "one"


class InputContract(Config):
    """What the graph must be fed: these channels, this rate, this unit, through exactly these DSP steps.

    A graph that works on each channel by itself (``per_channel``) names none: any montage will do, and its
    channels are the rows of the graph's first dimension.  A decoder is fed ``unit`` "codes", its ``sfreq``
    is the frame rate, and its ``stype`` that of the signal it gives back.
    """

    stype: str = "EEG"
    sfreq: PositiveFloat
    unit: Literal["uV", "mV", "V", "codes"]
    ch_names: tuple[str, ...] = ()
    min_present: PositiveInt = 1
    per_channel: bool = False
    dsp: tuple[AnyStep, ...] = ()

    @property
    def n_inputs(self) -> int:
        """Channels of the graph's input: those of the montage, in each band that the list makes of them."""
        return max(len(self.ch_names), 1) * math.prod(step.outputs_per_channel for step in self.dsp)


class Readout(Config):
    """How the outputs become decisions.

    ``head``, where it is given, is the file that holds the last linear step apart from the graph: what a
    calibration starts from (`engine.head`).

    ``operating`` says what ``decision`` does at which bound, measured on people that the model has not learnt
    from; empty where nobody has measured.
    """

    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    idle: str | None = None
    logits: str = "logits"
    latent: str | None = None
    head: FileName | None = None
    temperature: PositiveFloat = 1.0
    decision: AnyDecision = DecisionConfig()
    operating: tuple[OperatingPoint, ...] = ()


class Codec(Config):
    """What the two ends of a codec must share.

    Attributes
    ----------
    codec : str
        Fingerprint of codebooks and decoder: equal at both ends, or the codes mean something else.
    n_codebooks, codebook_size : int
        Codes per channel and frame, and how many values each may take.
    n_gains : int or None
        Values that the gain code of a channel may take; None: the codec sends no gain.
    """

    codec: CodecId
    n_codebooks: PositiveInt
    codebook_size: Annotated[int, Field(ge=2)]
    n_gains: Annotated[int, Field(ge=2)] | None = None

    @property
    def n_rows(self) -> int:
        """Numbers per channel and frame: codes, then the gain code."""
        return self.n_codebooks + (self.n_gains is not None)


class Tokens(Codec):
    """Which outputs are codes (1, [C,] K), gain codes (1, [C]) and latents, of one frame."""

    codes: str = "codes"
    gain: str | None = None
    latent: str | None = None


class Signal(Codec):
    """Which output is the waveform, (1, samples per frame) in ``unit`` at ``sfreq``."""

    output: str = "signal"
    sfreq: PositiveFloat
    unit: Literal["uV", "mV", "V"] = "uV"


class Features(Config):
    """Which output is the latent, for a backbone without a head."""

    latent: str = "latent"


class Manifest(Config):
    """The content of ``bundle.json``."""

    format: Literal[1]
    name: str
    version: str
    title: str
    system: str
    input: InputContract
    graph: Graph
    readout: Readout | None = None
    tokens: Tokens | None = None
    signal: Signal | None = None
    features: Features | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)
    files: dict[FileName, Sha256]

    @property
    def product(self) -> str:
        """Which of `PRODUCTS` this bundle puts out."""
        return next(name for name in PRODUCTS if getattr(self, name) is not None)

    @property
    def latent(self) -> str | None:
        """Name of the output that holds the latent, if there is one."""
        block = self.readout or self.tokens or self.features
        return None if block is None else block.latent

    @property
    def free_dimension(self) -> str | None:
        """Name of the graph's first dimension where it is free; None where it is 1."""
        if self.input.per_channel:
            return FREE_DIMENSION
        return FREE_ROWS if self.graph.rows == "free" else None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse a manifest whose parts contradict each other."""
        given = [name for name in PRODUCTS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(PRODUCTS)} must be given, not {given or 'none'}")
        outputs = {tensor.name: tensor for tensor in self.graph.outputs}
        wrong = [*_input_faults(self), *_product_faults(self, outputs)]
        if self.graph.file not in self.files:
            wrong.append(f"graph.file {self.graph.file!r} has no hash under files")
        wrong += _head_faults(self)
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


def _input_faults(manifest: Manifest) -> list[str]:
    contract, graph = manifest.input, manifest.graph
    wrong = []
    named, n_chans = len(contract.ch_names), max(len(contract.ch_names), 1)
    if contract.per_channel == bool(named):
        wrong.append("input.ch_names must be empty for a per_channel bundle, and only for one")
    if contract.min_present > n_chans:
        wrong.append(f"min_present {contract.min_present} exceeds the {named} channels")
    if (contract.unit == CODES_UNIT) != (manifest.signal is not None):
        wrong.append("input.unit 'codes' goes with signal, and only with it")
    rows = manifest.signal.n_rows if manifest.signal is not None else 1
    expected = (1, contract.n_inputs * rows, graph.hop)
    if graph.input.shape != expected:
        wrong.append(f"graph.input.shape is {graph.input.shape}; channels and hop say {expected}")
    if contract.per_channel:
        leading = [t.name for t in graph.outputs if t.shape[0] != 1]
        leading += [s.input for s in graph.state if s.shape[0] != 1]
        wrong += [f"{name} has more than one row; a per_channel bundle lists one channel" for name in leading]
    return wrong


def _product_faults(manifest: Manifest, outputs: dict[str, Tensor]) -> list[str]:
    if manifest.readout is not None:
        return _readout_faults(manifest.readout, outputs)
    if manifest.tokens is not None:
        return _tokens_faults(manifest.tokens, outputs)
    if manifest.signal is not None:
        return _signal_faults(manifest, manifest.signal, outputs)
    assert manifest.features is not None
    return _unknown("features", {"latent": manifest.features.latent}, outputs)


def _unknown(block: str, named: dict[str, str | None], outputs: dict[str, Tensor]) -> list[str]:
    return [
        f"{block}.{key} {name!r} is not among the outputs {sorted(outputs)}"
        for key, name in named.items()
        if name is not None and name not in outputs
    ]


def _readout_faults(readout: Readout, outputs: dict[str, Tensor]) -> list[str]:
    wrong = _unknown("readout", {"logits": readout.logits, "latent": readout.latent}, outputs)
    logits = outputs.get(readout.logits)
    if logits is not None and logits.shape[-1] != len(readout.classes):
        wrong.append(f"{len(readout.classes)} classes, but the logits have {logits.shape[-1]}")
    if readout.idle is not None and readout.idle not in readout.classes:
        wrong.append(f"idle class {readout.idle!r} is not among the classes {list(readout.classes)}")
    return wrong


def _head_faults(manifest: Manifest) -> list[str]:
    head = manifest.readout.head if manifest.readout is not None else None
    if head is None:
        return []
    assert manifest.readout is not None
    wrong = [] if head in manifest.files else [f"readout.head {head!r} has no hash under files"]
    if manifest.readout.latent is None:
        wrong.append("readout.head reads a latent: readout.latent must name it")
    return wrong


def _tokens_faults(tokens: Tokens, outputs: dict[str, Tensor]) -> list[str]:
    named = {"codes": tokens.codes, "gain": tokens.gain, "latent": tokens.latent}
    wrong = _unknown("tokens", named, outputs)
    codes = outputs.get(tokens.codes)
    if codes is not None and codes.shape[-1] != tokens.n_codebooks:
        wrong.append(f"{tokens.n_codebooks} codebooks, but the codes have {codes.shape[-1]}")
    if (tokens.gain is None) != (tokens.n_gains is None):
        wrong.append("tokens.gain and tokens.n_gains go together")
    return wrong


def _signal_faults(manifest: Manifest, signal: Signal, outputs: dict[str, Tensor]) -> list[str]:
    wrong = _unknown("signal", {"output": signal.output}, outputs)
    given = outputs.get(signal.output)
    frame_rate = manifest.input.sfreq / manifest.graph.hop
    if given is not None and abs(given.shape[-1] * frame_rate / signal.sfreq - 1) > RATE_TOLERANCE:
        wrong.append(
            f"signal.sfreq is {signal.sfreq:g} Hz, but {given.shape[-1]} samples a frame at {frame_rate:g} "
            f"frames a second are {given.shape[-1] * frame_rate:g}"
        )
    return wrong
