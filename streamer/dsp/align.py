"""Running Euclidean alignment: whitening by the covariance of the past."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from streamer.dsp import Step, StepConfig
from streamer.dsp._rows import rows_times
from streamer.errors import StreamMismatch
from streamer.types import Chunk, StreamInfo

Matrix = NDArray[np.float64]


class Config(StepConfig):
    """Multiply by the inverse square root of a running covariance, so that people and sessions look alike.

    The online form of Euclidean alignment (He & Wu 2020, doi:10.1109/TBME.2019.2913914).  Time is cut into
    blocks counted from the first sample after a reset, and the whitening of a block comes from the blocks
    before it: predict, then adapt.  The first block, where nothing came before and there is no ``prior``,
    is divided by the root mean square of its samples so far.

    Every channel takes part: select them first.

    Attributes
    ----------
    update_s : float
        Length of a block, seconds.
    forget_s : float or None
        Time constant of forgetting, seconds; None weighs the whole past alike.
    prior : nested tuple of float or None
        Covariance to start from, (n_chans, n_chans), in the squared unit of the stream: a population mean.
    prior_s : float
        What the prior weighs: as much as so many seconds of data.
    shrinkage : float
        Share of the whitened matrix that is a multiple of the identity.  Keeps whitening bounded where the
        covariance is singular (after an average reference, say).
    clip : float
        A block whose power is beyond so many times the running power counts with only so much: one
        artefact cannot take the whitening over, and a lasting change still gets through.
    groups : int
        The channels are so many equal groups, one after the other, each whitened by itself: the bands of a
        `filterbank`.
    """

    kind: Literal["align"] = "align"
    update_s: PositiveFloat = 1.0
    forget_s: PositiveFloat | None = 60.0
    prior: tuple[tuple[float, ...], ...] | None = None
    prior_s: PositiveFloat = 10.0
    shrinkage: float = Field(default=0.05, ge=0, le=1)
    clip: float = Field(default=10.0, gt=1)
    groups: PositiveInt = 1

    @model_validator(mode="after")
    def _check_prior(self) -> Self:
        if self.prior is None:
            return self
        if any(len(row) != len(self.prior) for row in self.prior):
            raise ValueError("prior must be square: as many rows as columns")
        prior = np.array(self.prior)
        if not np.allclose(prior, prior.T) or not np.trace(prior) > 0:
            raise ValueError("prior must be a covariance: symmetric, its trace positive")
        return self

    def build(self, info: StreamInfo) -> Step:
        """Return the step; `StreamMismatch` when the prior or the groups want another number of channels."""
        if self.prior is not None and len(self.prior) != info.n_chans:
            raise StreamMismatch(
                f"align has a prior for {len(self.prior)} channels; stream {info.name!r} brings "
                f"{info.n_chans}. Put a montage step in front, or leave the prior out."
            )
        if info.n_chans % self.groups:
            raise StreamMismatch(
                f"align has {self.groups} groups; the {info.n_chans} channels of stream {info.name!r} do not "
                "divide into so many. Groups are the bands of a filterbank in front."
            )
        return Align(info, self) if self.groups == 1 else Groups(info, self)

    def of_group(self, columns: slice) -> Config:
        """Return the settings of one group: its block of the prior."""
        prior = None if self.prior is None else tuple(row[columns] for row in self.prior[columns])
        return self.model_copy(update={"prior": prior, "groups": 1})


class Groups:
    """A whitening for each group of channels; a `Step`."""

    def __init__(self, info: StreamInfo, config: Config) -> None:
        self.info = replace(info, unit="unknown")
        self.delay = 0
        size = info.n_chans // config.groups
        self._columns = [slice(start, start + size) for start in range(0, info.n_chans, size)]
        self._parts = [
            Align(
                replace(info, ch_names=info.ch_names[columns], ch_types=info.ch_types[columns]),
                config.of_group(columns),
            )
            for columns in self._columns
        ]

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the chunk, each group whitened."""
        groups = zip(self._parts, self._columns, strict=True)
        done = [part(chunk.carrying(chunk.data[:, columns])).data for part, columns in groups]
        return chunk.carrying(np.concatenate(done, axis=1))

    def reset(self) -> None:
        """Go back to the prior."""
        for part in self._parts:
            part.reset()


class Align:
    """The running whitening; a `Step`.  Its output has no unit: every direction has about unit variance.

    Attributes
    ----------
    whitening : ndarray, shape (n_chans, n_chans), float64, or None
        In use now; None until there is a past.
    """

    def __init__(self, info: StreamInfo, config: Config) -> None:
        self.info = replace(info, unit="unknown")
        self.delay = 0
        self._config = config
        self._n_block = max(1, round(config.update_s * info.sfreq))
        self._keep = np.exp(-config.update_s / config.forget_s) if config.forget_s else 1.0
        self._block = np.empty((self._n_block, info.n_chans))
        self._block_valid = np.empty(self._n_block, dtype=bool)
        self.reset()

    def reset(self) -> None:
        """Go back to the prior."""
        n_chans = self._block.shape[1]
        self._filled = 0
        self._sum: Matrix = np.zeros((n_chans, n_chans))
        self._weight = 0.0  # samples behind _sum
        self._power = _Power()
        self.whitening: Matrix | None = None
        if self._config.prior is not None:
            self._weight = self._config.prior_s * self.info.sfreq
            self._sum = np.array(self._config.prior) * self._weight
            self._renew()

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the chunk whitened."""
        x = chunk.data.astype(np.float64)
        out = np.empty_like(chunk.data, order="C")
        start = 0
        while start < len(x):
            stop = min(len(x), start + self._n_block - self._filled)
            out[start:stop] = self._whiten(x[start:stop], chunk.valid[start:stop])
            self._collect(x[start:stop], chunk.valid[start:stop])
            start = stop
        return chunk.carrying(out)

    def _whiten(self, x: Matrix, valid: NDArray[np.bool_]) -> Matrix:
        if self.whitening is None:
            return x / self._power.rms(x, valid)[:, None]
        return rows_times(x, self.whitening)

    def _collect(self, x: Matrix, valid: NDArray[np.bool_]) -> None:
        stop = self._filled + len(x)
        self._block[self._filled : stop] = x
        self._block_valid[self._filled : stop] = valid
        self._filled = stop
        if stop == self._n_block:
            self._filled = 0
            self._adapt()

    def _adapt(self) -> None:
        """Take the finished block into the running covariance; rows that are not valid stay out."""
        rows = self._block[self._block_valid & np.isfinite(self._block).all(axis=1)]
        if not len(rows):
            return
        block = rows.T @ rows  # of a whole block, so its order of summation does not hang on the chunks
        power, running = np.trace(block) / len(rows), np.trace(self._sum) / max(self._weight, 1.0)
        if running > 0 and power > self._config.clip * running:
            block *= self._config.clip * running / power
        self._sum = self._keep * self._sum + block
        self._weight = self._keep * self._weight + len(rows)
        self._renew()

    def _renew(self) -> None:
        """Whiten by the running covariance from now on."""
        cov = self._sum / self._weight
        mean_power = np.trace(cov) / len(cov)
        if not mean_power > 0:
            return  # only zeros so far
        share = self._config.shrinkage
        values, vectors = np.linalg.eigh((1 - share) * cov + share * mean_power * np.eye(len(cov)))
        floor = 1e-9 * mean_power  # without shrinkage a singular covariance must not divide by zero
        self.whitening = (vectors / np.sqrt(np.maximum(values, floor))) @ vectors.T


class _Power:
    """Running mean square over all channels, from the first row on."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._count = 0

    def rms(self, x: Matrix, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the root mean square of all valid rows up to each row, shape (n_times,); 1 for silence."""
        square = np.where(valid, np.square(x).mean(axis=1), 0.0)
        total = np.cumsum(np.r_[self._sum, square])[1:]  # one addition after the other: any chunking
        count = self._count + np.cumsum(valid)
        self._sum, self._count = float(total[-1]), int(count[-1])
        mean = total / np.maximum(count, 1)
        return np.sqrt(np.where(mean > 0, mean, 1.0))
