"""Properties of the running scale: exact under any chunking, honest about its past, undone by its codes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from offline.blocks.scale import SMALLEST, STEP_DB, RunningScale  # noqa: E402

HOP, FRAMES, CHANS, N_HOPS = 12, 7, 3, 40


def scale(frames: int = FRAMES) -> RunningScale:
    return RunningScale(CHANS, HOP, frames)


def signal(batch: int = 2, seed: int = 0) -> Any:
    """Noise whose level wanders between 0.2 and 100 µV, (B, C, T)."""
    rng = np.random.default_rng(seed)
    level = 10.0 ** np.cumsum(rng.normal(0, 0.3, (batch, CHANS, N_HOPS, 1)), axis=2)
    x = 20 * level.clip(1e-2, 5.0) * rng.standard_normal((batch, CHANS, N_HOPS, HOP))
    return torch.from_numpy(x.reshape(batch, CHANS, -1).astype(np.float32))


def on_the_borders() -> Any:
    """Channels whose power lies on a border between two codes, as nearly as floats allow: (1, C, T)."""
    borders = scale().borders.double().sqrt().repeat_interleave(2 * HOP)  # each for two hops
    return torch.stack([borders, -borders, borders.flip(0)]).float()[None]


def whole(block: RunningScale, x: Any) -> tuple[Any, Any, Any]:
    (scaled, codes), state = block(x, block.init_state(len(x)))
    return scaled, codes, state


@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(1, 11), min_size=1, max_size=5), frames=st.integers(1, 20))
def test_any_chunking_gives_the_same_bits(cuts: list[int], frames: int) -> None:
    """Scaled signal, codes and final state are bit for bit those of one call."""
    block, x = scale(frames), signal()
    scaled, codes, last = whole(block, x)
    state, parts, start = block.init_state(2), [], 0
    while start < N_HOPS:
        n = cuts[len(parts) % len(cuts)]
        part, state = block(x[..., start * HOP : (start + n) * HOP], state)
        parts.append(part)
        start += n
    assert torch.equal(torch.cat([part[0] for part in parts], dim=-1), scaled)
    assert torch.equal(torch.cat([part[1] for part in parts], dim=1), codes)
    assert all(torch.equal(a, b) for a, b in zip(state, last, strict=True))


def test_a_row_gives_the_same_bits_in_any_batch() -> None:
    """The codes of a row do not depend on how many rows and channels are computed beside it."""
    x = signal(batch=5)
    codes = whole(scale(), x)[1]
    assert torch.equal(whole(scale(), x[2:3])[1], codes[2:3])
    alone = RunningScale(1, HOP, FRAMES)
    assert torch.equal(whole(alone, x[2:3, 1:2])[1], codes[2:3, :, 1:2])


def test_the_gain_is_the_root_mean_power_of_the_frames_seen() -> None:
    """Within half a step of 0.5 dB, from the first frame on, with the true number of frames."""
    x = signal()
    codes = whole(scale(), x)[1]
    gain_db = 20 * scale().gain_of(codes).double().log10()
    power = x.double().view(2, CHANS, N_HOPS, HOP).square().mean(-1)
    for frame in range(N_HOPS):
        level_db = 10 * power[..., max(0, frame + 1 - FRAMES) : frame + 1].mean(-1).log10()
        assert (gain_db[:, frame] - level_db).abs().max() <= STEP_DB / 2 + 1e-5


def test_the_codes_undo_the_scaling() -> None:
    """Scaled signal times the gain of its code is the signal."""
    block, x = scale(), signal()
    scaled, codes, _ = whole(block, x)
    gains = block.gain_of(codes).transpose(1, 2).repeat_interleave(HOP, dim=-1)  # (B, C, T)
    assert torch.allclose(scaled * gains, x, rtol=1e-6, atol=0)
    assert (block.gain_of(torch.arange(block.n_gains)) > 0).all()


@pytest.mark.parametrize(("factor", "steps"), [(2.0, {12, 13}), (10.0, {40}), (0.1, {-40}), (1.0, {0})])
def test_a_louder_signal_moves_the_codes_alone(factor: float, steps: set[int]) -> None:
    """6.02 dB are 12.04 steps, 20 dB are 40; the scaled signal stays within a step of where it was."""
    x = signal()
    scaled, codes, _ = whole(scale(), x)
    louder, louder_codes, _ = whole(scale(), factor * x)
    moved = set((louder_codes - codes).unique().tolist())
    # Rounding may take a power that lies on a border to its other side.
    assert moved <= steps | {min(steps) - 1, max(steps) + 1}
    assert torch.stack([louder_codes - codes == step for step in steps]).any(0).float().mean() > 0.99
    ratio = (louder / scaled)[scaled != 0]
    assert (20 * ratio.log10()).abs().max() < STEP_DB + 1e-4


def test_silence_and_overload_are_safe() -> None:
    """A dead channel is divided by the smallest gain and stays zero; beyond the ladder its end is used."""
    x = torch.zeros(1, CHANS, 3 * HOP)
    x[:, 1], x[:, 2] = 1e30**0.5, 1e-7
    scaled, codes, _ = whole(scale(), x)
    assert torch.isfinite(scaled).all()
    assert not scaled[:, 0].any()
    assert codes.unique(dim=1).flatten().tolist() == [0, RunningScale.n_gains - 1, 0]
    assert float(scale().gain_of(codes[0, 0, 0])) == pytest.approx(SMALLEST)


def test_left_context_is_true() -> None:
    """A gain depends on the whole left context, on nothing before it and on nothing after its hop."""
    block, x = scale(), signal(batch=1)
    codes = whole(block, x)[1]
    frame = 20
    first = frame * HOP - block.left_context
    cases = ((first - 1, False), (first, True), (frame * HOP + HOP - 1, True), ((frame + 1) * HOP, False))
    for sample, seen in cases:
        poked = x.clone()
        poked[..., sample] += 1e6
        assert bool((whole(block, poked)[1][:, frame] != codes[:, frame]).all()) == seen, sample


def test_a_cleared_row_starts_afresh() -> None:
    """Zeroing a row of the state restarts that row and leaves the other as it was."""
    block, x = scale(), signal()
    half = N_HOPS // 2 * HOP
    _, _, (energy, seen) = whole(block, x[..., :half])
    keep = torch.tensor([0, 1])
    (_, first), state = block(x[..., half : half + HOP], (energy * keep[:, None, None], seen * keep))
    (_, rest), _ = block(x[..., half + HOP :], state)
    mixed = torch.cat([first, rest], dim=1)
    (_, going_on), _ = block(x[..., half:], (energy, seen))
    assert torch.equal(mixed[0], whole(block, x[..., half:])[1][0])
    assert torch.equal(mixed[1], going_on[1])
    assert not torch.equal(mixed[0], going_on[0])


class _Step(torch.nn.Module):
    """One hop, with what it takes to undo it."""

    def __init__(self) -> None:
        super().__init__()
        self.block = scale(frames=2)

    def forward(self, x: Any, energy: Any, seen: Any) -> tuple[Any, ...]:
        (scaled, codes), state = self.block(x, (energy, seen))
        return (scaled, codes, self.block.gain_of(codes), *state)


def test_exported_codes_are_exact() -> None:
    """Stepped by ONNX Runtime at opset 20, every gain code, gain and scaled sample is torch's."""
    import onnxruntime as ort

    step, x = _Step().eval(), torch.cat([signal(batch=1, seed=4), on_the_borders()], dim=-1)
    state = step.block.init_state(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        program = torch.onnx.export(
            step, (x[..., :HOP], *state), dynamo=True, opset_version=20, verbose=False
        )
    session = ort.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_inputs()]
    past, parts = [each.numpy() for each in state], []
    for start in range(0, x.shape[-1], HOP):
        values = session.run(
            None, dict(zip(names, [x[..., start : start + HOP].numpy(), *past], strict=True))
        )
        parts.append(values[:3])
        past = values[3:]
    (scaled, codes), last = step.block(x, state)
    gains = step.block.gain_of(codes)
    for i, (expected, axis) in enumerate(((scaled, -1), (codes, 1), (gains, 1))):
        assert np.array_equal(np.concatenate([part[i] for part in parts], axis=axis), expected.numpy())
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(past, last, strict=True))


def test_impossible_sizes_are_refused() -> None:
    """No channel, no sample or no frame is an error with the numbers in it."""
    with pytest.raises(ValueError, match="at least 1"):
        RunningScale(1, 12, 0)
