"""The contract of every DSP step found in ``streamer.dsp``."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.chain import Chain
from streamer.components import modules
from streamer.dsp import Step, StepConfig
from streamer.types import Chunk, StreamInfo, concatenate, empty_chunk

SFREQ, N_TIMES, FIRST = 100.0, 260, 37
# Enough of them for BLAS to sum in another order when rows come in another number: 7 are too few.
NAMES = (
    *("Fz", "C3", "C4", "Pz", "T3", "A1", "FC1", "FC2", "CP1", "CP2", "F3", "F4"),
    *("P3", "P4", "O1", "O2", "C1", "C2", "FC5", "FC6", "CP5", "CP6", "Fp1", "aux"),
)
N_CHANS = len(NAMES)
INFO = StreamInfo("subject", "s-1", "EEG", SFREQ, NAMES, ("eeg",) * (N_CHANS - 1) + ("misc",), "uV")
PRIOR = tuple(tuple(float(100 * (i == j) + 20) for j in range(N_CHANS)) for i in range(N_CHANS))

# At least one example of each kind; a kind without one fails `test_every_step_has_an_example`.
EXAMPLES: dict[str, list[dict[str, object]]] = {
    "align": [
        {"update_s": 0.3},
        {"prior": PRIOR, "forget_s": None, "shrinkage": 0.0},
        {"update_s": 5.0},
        {"groups": 3, "prior": PRIOR},
    ],
    "bandpass": [{"low": 4, "high": 40}, {"low": 0.5}, {"high": 20, "order": 2}],
    "filterbank": [{"bands": ((0.5, 4), (8, 30))}],
    "montage": [
        {"ch_names": ("C4", "Cz", "T7", "POz"), "min_present": 2},
        {"ch_names": ("b", "a"), "by": "order"},
    ],
    "notch": [{"freqs": (20.0, 30.0)}],
    "quality": [{"window_s": 0.3, "update_s": 0.07, "max_bad": 0.1, "rail_uv": 80.0}],
    "reference": [{}, {"channels": ("T3", "A1")}],
    "resample": [{"sfreq": 64}, {"sfreq": 250}, {"sfreq": 100}, {"sfreq": 33, "width": 0.1}],
    "scale": [{"unit": "V"}, {"factor": 0.1}],
}
CONFIGS = [
    pytest.param(modules("streamer.dsp")[kind].Config(kind=kind, **example), id=f"{kind}-{i}")
    for kind, examples in EXAMPLES.items()
    for i, example in enumerate(examples)
]
every_step = pytest.mark.parametrize("config", CONFIGS)
cuts = st.lists(st.integers(0, N_TIMES), max_size=40).map(sorted)  # equal neighbours make empty chunks
some = settings(deadline=None, max_examples=25)


def recording(seed: int = 0, n_times: int = N_TIMES) -> Chunk:
    """Return a signal with an offset, an artefact, a flat end and rows that are not valid."""
    rng = np.random.default_rng(seed)
    data = 10 * rng.standard_normal((n_times, N_CHANS)) + 300
    data[60:70] *= 30
    data[150:, 2] = 5.0
    times = 1000 + (FIRST + np.arange(n_times)) / SFREQ + 1e-4 * rng.standard_normal(n_times)
    return Chunk(data.astype(np.float32), FIRST, times, rng.random(n_times) > 0.02, discontinuity=True)


def cut(chunk: Chunk, at: list[int]) -> list[Chunk]:
    """Return the chunk in pieces; only the first one carries the flag."""
    edges = list(pairwise([0, *at, len(chunk)]))
    return [
        Chunk(
            chunk.data[a:b],
            chunk.index + a,
            chunk.times[a:b],
            chunk.valid[a:b],
            chunk.discontinuity and i == 0,
        )
        for i, (a, b) in enumerate(edges)
    ]


def run(step: Step, chunks: list[Chunk]) -> Chunk:
    """Return everything that comes out, after checking that the pieces follow each other."""
    out = [step(chunk) for chunk in chunks]
    for chunk in out:
        assert len(chunk.data) == len(chunk.times) == len(chunk.valid)
    for before, after in pairwise(out):
        assert after.index == before.index + len(before)
    return concatenate(out)


def assert_same(got: Chunk, wanted: Chunk) -> None:
    """Assert that two chunks are equal, bit for bit."""
    assert (got.index, got.discontinuity) == (wanted.index, wanted.discontinuity)
    np.testing.assert_array_equal(got.data.view(np.uint32), wanted.data.view(np.uint32))
    np.testing.assert_array_equal(got.times, wanted.times)
    np.testing.assert_array_equal(got.valid, wanted.valid)


def test_every_step_has_an_example() -> None:
    """A step that exists is tested here."""
    assert set(EXAMPLES) == set(modules("streamer.dsp"))


@every_step
@some
@given(at=cuts)
def test_chunking_does_not_show(config: StepConfig, at: list[int]) -> None:
    """Whatever the chunking, empty chunks included, the output is the same bit for bit."""
    whole = run(config.build(INFO), [recording()])
    assert_same(run(config.build(INFO), cut(recording(), at)), whole)


@every_step
def test_one_sample_at_a_time(config: StepConfig) -> None:
    """Chunks of one sample give what one chunk of all gives, bit for bit."""
    whole = run(config.build(INFO), [recording()])
    assert_same(run(config.build(INFO), cut(recording(), list(range(1, N_TIMES)))), whole)


@every_step
def test_reset_is_a_fresh_start(config: StepConfig) -> None:
    """After a reset nothing of what came before shows."""
    step = config.build(INFO)
    run(step, cut(recording(seed=1), [50]))
    step.reset()
    assert_same(run(step, cut(recording(), [33])), run(config.build(INFO), cut(recording(), [33])))


@every_step
@some
@given(now=st.integers(1, N_TIMES - 1))
def test_the_future_changes_nothing(config: StepConfig, now: int) -> None:
    """What has come out by a sample does not depend on the samples after it."""
    past, rest = cut(recording(), [now])
    other = Chunk(rest.data * -3 + 1, rest.index, rest.times + 1, ~rest.valid)
    whole = run(config.build(INFO), [concatenate([past, rest])])
    changed = run(config.build(INFO), [concatenate([past, other])])
    n = len(run(config.build(INFO), [past]))
    assert_same(cut(changed, [n])[0], cut(whole, [n])[0])


@every_step
def test_input_is_left_alone(config: StepConfig) -> None:
    """The arrays of the input chunk are not written to, then or later."""
    chunk, copy = recording(), recording()
    for array in (chunk.data, chunk.times, chunk.valid):
        array.setflags(write=False)
    step = config.build(INFO)
    step(chunk)
    step(recording(seed=2))
    assert_same(chunk, copy)


@every_step
def test_output_is_what_info_says(config: StepConfig) -> None:
    """The output is C-contiguous float32 with the channels of ``info``, and the delay is not negative."""
    step = config.build(INFO)
    out = step(recording())
    assert out.data.dtype == np.float32
    assert out.times.dtype == np.float64
    assert out.valid.dtype == np.bool_
    assert out.data.flags.c_contiguous
    assert out.data.shape == (len(out), step.info.n_chans)
    assert np.isfinite(out.data).all()
    assert isinstance(step.delay, int)
    assert step.delay >= 0


@every_step
def test_nothing_in_nothing_out(config: StepConfig) -> None:
    """An empty chunk gives an empty chunk of the output's shape, before the first sample too."""
    step = config.build(INFO)
    for _ in range(2):
        out = step(empty_chunk(INFO, FIRST))
        assert out.data.shape == (0, step.info.n_chans)
        assert out.data.dtype == np.float32
        assert len(out.times) == len(out.valid) == 0


@every_step
def test_flag_is_passed_on(config: StepConfig) -> None:
    """A discontinuity comes out with the chunk it came with, and only then."""
    step = config.build(INFO)
    flags = [step(chunk).discontinuity for chunk in cut(recording(), [100, 200])]
    assert flags == [True, False, False]


@every_step
def test_time_axis_is_kept(config: StepConfig) -> None:
    """Row m of the output is stamped with the time at which sample m of its grid is due."""
    step = config.build(INFO)
    out = step(recording())
    due = 1000 + (out.index + np.arange(len(out))) / step.info.sfreq
    np.testing.assert_allclose(out.times, due, atol=5e-4)
    assert 0 <= out.index / step.info.sfreq - FIRST / SFREQ < 1 / step.info.sfreq


@some
@given(at=cuts)
def test_a_chain_is_a_step(at: list[int]) -> None:
    """Steps in sequence keep the contract of one."""
    slot = modules("streamer.dsp")
    kinds = ("quality", "notch", "reference", "montage", "bandpass", "resample", "align")
    configs = [slot[kind].Config(kind=kind, **EXAMPLES[kind][0]) for kind in kinds]
    whole = run(Chain(configs, INFO), [recording()])
    assert_same(run(Chain(configs, INFO), cut(recording(), at)), whole)
