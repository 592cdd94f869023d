"""Random changes of training signal that leave its label true, or change it knowingly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt

from offline.data.trials import mirror
from streamer.components import Config
from streamer.types import Samples

Labels = NDArray[np.int64]
Share = Annotated[float, Field(ge=0, le=1)]
HANDS = (("left", "right"), ("right", "left"))


class Augment(Config):
    """How much of what; nothing by default.

    Attributes
    ----------
    mirror : float
        Share of crops whose hemispheres are swapped, and with them classes that name left and right.
    gain, channel_gain : float
        SD of the log gain of a crop and of each of its channels.
    drop_channel : float
        Share of channels set to zero.
    noise : float
        SD of added white noise, in the signal's unit behind the DSP list.
    rotate : int
        Electrodes by which an armband sits turned at most, either way: channels are rolled by as many.
    turned : float
        Share of crops that are turned so.
    flip : float
        Share of crops on the other arm: the order of the channels is reversed.
    shift_s : float
        Labels come so much earlier or later at most: people answer a cue sooner or later, and nobody knows
        when.  For crops.
    recombine : float
        Share of crops whose beginning, up to a random sample, is that of another crop of the batch with the
        same labels all along (Lotte, Proc. IEEE 103(6), 2015).
    """

    mirror: Share = 0.0
    gain: NonNegativeFloat = 0.0
    channel_gain: NonNegativeFloat = 0.0
    drop_channel: Share = 0.0
    noise: NonNegativeFloat = 0.0
    rotate: NonNegativeInt = 0
    turned: Share = 1.0
    flip: Share = 0.0
    shift_s: NonNegativeFloat = 0.0
    recombine: Share = 0.0


class Augmenter:
    """Applies an `Augment` to batches; what is drawn depends on the generator alone.

    Parameters
    ----------
    ch_names, classes : sequence of str
        What is mirrored with what.

    Raises
    ------
    RecordingError
        A channel has no counterpart to mirror with.
    """

    def __init__(self, config: Augment, ch_names: Sequence[str], classes: Sequence[str]) -> None:
        self.config = config
        self._order = mirror(ch_names) if config.mirror else []
        self._twin = np.array([_twin(name, classes) for name in classes])

    def __call__(self, x: Samples, labels: Labels, rng: np.random.Generator) -> tuple[Samples, Labels]:
        """Return changed copies.

        Parameters
        ----------
        x : ndarray, shape (B, C, T), float32
        labels : ndarray, shape (B, ...), int64
            Classes; negative ones stay as they are.
        """
        c, n = self.config, len(x)
        if c.mirror:
            flip = rng.random(n) < c.mirror
            x[flip] = x[flip][:, self._mirrored(x.shape[1])]
            other = np.where(labels >= 0, self._twin[np.maximum(labels, 0)], labels)
            labels = np.where(flip.reshape(n, *[1] * (labels.ndim - 1)), other, labels)
        x = self._levels(x, rng)
        if c.rotate or c.flip:
            x = self._round_the_arm(x, rng)
        if c.recombine:
            x = _recombined(x, labels, c.recombine, rng)
        return x, labels

    def _mirrored(self, n_rows: int) -> list[int]:
        """Return the mirrored order of all rows: the channels, in one band after the other."""
        n = len(self._order)
        return [start + place for start in range(0, n_rows, n) for place in self._order]

    def _round_the_arm(self, x: Samples, rng: np.random.Generator) -> Samples:
        """Return ``x`` as of armbands that sit otherwise."""
        c, n, n_chans = self.config, len(x), x.shape[1]
        turns = rng.integers(-c.rotate, c.rotate + 1, n) * (rng.random(n) < c.turned)
        order = (np.arange(n_chans) - turns[:, None]) % n_chans
        order = np.where((rng.random(n) < c.flip)[:, None], n_chans - 1 - order, order)
        turned: Samples = x[np.arange(n)[:, None], order]
        return turned

    def _levels(self, x: Samples, rng: np.random.Generator) -> Samples:
        """Return ``x`` with other gains, channels left out, and noise."""
        c, shape = self.config, (len(x), x.shape[1], 1)
        if c.gain or c.channel_gain or c.drop_channel:
            gain = np.exp(rng.normal(0, c.gain, (len(x), 1, 1)) + rng.normal(0, c.channel_gain, shape))
            x = x * (gain * (rng.random(shape) >= c.drop_channel)).astype(np.float32)
        if c.noise:
            x = x + rng.standard_normal(x.shape, dtype=np.float32) * np.float32(c.noise)
        return x


def _twin(name: str, classes: Sequence[str]) -> int:
    """Return the place of the class that a mirrored brain means."""
    for hand, other in HANDS:
        if hand in name and name.replace(hand, other) in classes:
            return list(classes).index(name.replace(hand, other))
    return list(classes).index(name)


def _recombined(x: Samples, labels: Labels, share: float, rng: np.random.Generator) -> Samples:
    """Return crops of which some begin as another one of the same labels."""
    partner = rng.permutation(len(x))
    same = (labels == labels[partner]).reshape(len(x), -1).all(axis=1)
    chosen = same & (rng.random(len(x)) < share)
    until = rng.integers(1, x.shape[2], len(x))
    theirs: Any = chosen[:, None] & (np.arange(x.shape[2]) < until[:, None])  # (B, T)
    return np.where(theirs[:, None], x[partner], x)
