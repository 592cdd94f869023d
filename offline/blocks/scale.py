"""A gain that runs with the signal: codecs see every channel at one level, and the far end can undo it.

The gain of a hop is the root mean square of the channel over the last ``frames`` hops, this one included,
rounded to a ladder of 0.5 dB.  No future, no statistics of the recording, a bounded past: live is offline.

Codes are exact.  Sums are made of element-wise additions in one fixed order, and a power becomes a code by
comparing it with the ladder's borders, not by a logarithm; so any chunking, any batch and ONNX Runtime
agree to the bit, which a mean over an axis (its order depends on the shape) does not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]

N_GAINS = 256
STEP_DB = 0.5
SMALLEST = 1e-3  # µV: a silent channel is divided by this


class RunningScale(nn.Module):
    """Divides each channel by its running level: x (B, C, T) -> x / gain (B, C, T) and codes (B, F, C).

    Parameters
    ----------
    n_chans : int
        C.
    hop : int
        Samples per frame; T is a multiple, F = T / hop.
    frames : int
        Frames in the level, the current one included.  While fewer have been seen, those seen count.

    Attributes
    ----------
    hop, left_context, delay : int
        Samples.
    n_gains : int
        Rungs of the ladder: codes are below it.  From 1 nV to 2.4 mV in steps of 0.5 dB.
    """

    delay = 0
    n_gains = N_GAINS

    def __init__(self, n_chans: int, hop: int, frames: int) -> None:
        super().__init__()
        if n_chans < 1 or hop < 1 or frames < 1:
            raise ValueError(f"n_chans, hop and frames must be at least 1, got {n_chans}, {hop}, {frames}")
        self.n_chans, self.hop, self.frames = n_chans, hop, frames
        rungs = torch.arange(N_GAINS, dtype=torch.float64) * STEP_DB
        borders = rungs[:-1] + STEP_DB / 2
        self.ladder: Tensor
        self.borders: Tensor
        self.register_buffer("ladder", (SMALLEST * 10 ** (rungs / 20)).float(), persistent=False)
        self.register_buffer("borders", (SMALLEST**2 * 10 ** (borders / 10)).float(), persistent=False)

    @property
    def left_context(self) -> int:
        """Samples before a hop that its gain depends on."""
        return (self.frames - 1) * self.hop

    def init_state(self, batch: int) -> State:
        """Return zeros: energies of the last frames (B, C, frames - 1), frames seen (B,) int64."""
        past = self.ladder.new_zeros(batch, self.n_chans, self.frames - 1)
        return past, torch.zeros(batch, dtype=torch.int64, device=past.device)

    def forward(self, x: Tensor, state: State) -> tuple[tuple[Tensor, Tensor], State]:
        """Return the scaled signal with the code of each gain, and the new state.

        Parameters
        ----------
        x : Tensor, shape (B, C, T), float32, µV
        state : tuple
            As from `init_state`.

        Returns
        -------
        scaled, codes : Tensor
            (B, C, T) float32, without unit; (B, F, C) int64.
        """
        past, seen = state
        framed = x.reshape(*x.shape[:2], -1, self.hop)  # (B, C, F, hop)
        energy = _window_sum(framed.square(), self.hop).squeeze(-1)  # (B, C, F)
        energy = torch.cat([past, energy], dim=-1)  # (B, C, frames - 1 + F)
        n_frames = framed.shape[-2]
        filled = seen[:, None] + torch.arange(1, n_frames + 1, device=x.device)  # (B, F)
        n_samples = (filled.clamp(max=self.frames) * self.hop).to(energy.dtype)
        power = _window_sum(energy, self.frames) / n_samples[:, None]  # (B, C, F)
        codes = (power[..., None] >= self.borders).sum(dim=-1)  # (B, C, F)
        scaled = (framed / self.gain_of(codes)[..., None]).flatten(-2)
        kept = energy[..., n_frames:]
        return (scaled, codes.transpose(1, 2)), (kept, filled[:, -1].clamp(max=self.frames))

    def gain_of(self, codes: Tensor) -> Tensor:
        """Return the gains (float32, µV) of codes of any shape (int64): multiply to undo the scaling."""
        return self.ladder[codes]


def _window_sum(x: Tensor, size: int) -> Tensor:
    """Return sums over ``size`` neighbours along the last axis, (..., N) -> (..., N - size + 1).

    Sums over 1, 2, 4, ... neighbours are built by doubling; those that make up ``size`` are put side by
    side.  Every output is added up in the same order, whatever N is.
    """
    block, width, done = x, 1, 0
    total: Tensor | None = None
    n_out = x.shape[-1] - size + 1
    while True:
        if size & width:
            part = block[..., done : done + n_out]
            total = part if total is None else total + part
            done += width
        if 2 * width > size:
            break
        block = block[..., : block.shape[-1] - width] + block[..., width:]
        width *= 2
    assert total is not None
    return total
