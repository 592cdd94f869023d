"""neuro2vec: predict the hidden patches, as a Fourier spectrum that is inverted or as a waveform.

Of the original (Wu et al., arXiv:2204.12440, later Neuro-BERT) the idea and the objective are public, the
code is not; an unofficial one is.  Two readings of "the spectrum" are about:

``spectrum: patch``
    Each token gives log magnitude, cosine and sine of its own patch's half spectrum.  It streams: no token
    needs to know more than its patch.
``spectrum: window``
    As in the unofficial code: token i of F gives the i-th of F runs of bins of the *whole window's* half
    spectrum of its electrode, which is inverted as a whole; the loss is over the whole window, hidden or not.
    Only a net that looks both ways (``form: window``) can.

Loudness.  Targets are the scaled patches (`offline.blocks.patches.Scale`), never scores of a recording, so
the net has to say how loud a patch was.  Each term is then made relative, so that loud electrodes do not
decide: magnitudes are compared as logarithms, phases are weighted within their own spectrum, and squared
errors of waveforms are divided by the power of their electrode in the segment, which makes the time term the
share of power that is not explained.  Nothing of that reaches the net's input.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator
from torch import Tensor, nn

from offline.blocks.patches import FLOOR, patches
from offline.blocks.tower import Backbone
from offline.models import neuro2vec as nets
from offline.objectives import masking
from offline.objectives.spectrum import (
    DB,
    laid_out,
    magnitude_loss,
    n_bins,
    phase_loss,
    polar,
    spectrum,
    waveform,
)
from offline.systems import Moment, Segments, System, SystemConfig
from offline.systems._figures import Figures
from streamer.components import Config as BaseConfig

Weight = Annotated[float, Field(ge=0)]
SILENCE = (
    1e-4  # power of a scaled electrode that is as good as none: divided by less, one would outweigh a batch
)


class Weights(BaseConfig):
    """Of the three terms of ``target: fourier``; the published inversion is 0, 0, 1.

    Attributes
    ----------
    magnitude : float
        Mean absolute error of the log magnitudes.
    phase : float
        ``1 - cos`` of the phase errors, weighted by magnitude.
    time : float
        Squared error of the inverted spectrum, as a share of the electrode's power.
    """

    magnitude: Weight = 1.0
    phase: Weight = 1.0
    time: Weight = 0.1

    @model_validator(mode="after")
    def _something(self) -> Weights:
        if not self.magnitude + self.phase + self.time:
            raise ValueError("all weights are 0: there is nothing to learn")
        return self


class Config(SystemConfig):
    """Settings.

    Attributes
    ----------
    model : neuro2vec.Config
    target : str
        ``fourier``, or ``time``: the waveform of the patch, by squared error.
    spectrum : str
        ``patch`` or ``window``, see the module.
    mask : masking.Config
        One patch in ten at random, as published; 0.1 to 0.6 are said to do as well.
    weights : Weights
        For ``target: fourier``.
    visible : float
        Weight of predicting the visible patches too (0: as published).  Where nothing is hidden, as in a
        probe, no other term asks the last block to say anything about its own patch.
    """

    kind: Literal["neuro2vec"] = "neuro2vec"
    model: nets.Config = nets.Config()
    target: Literal["fourier", "time"] = "fourier"
    spectrum: Literal["patch", "window"] = "patch"
    mask: masking.Config = masking.Config(kind="random", ratio=0.1)
    weights: Weights = Weights()
    visible: Weight = 0.0

    @model_validator(mode="after")
    def _window(self) -> Config:
        if self.spectrum == "patch":
            return self
        if self.model.form != "window":
            raise ValueError(
                "spectrum: window is the spectrum of all frames, the coming ones too, which a causal model "
                "cannot give: take spectrum: patch, or model.form: window"
            )
        if self.target != "fourier" or self.visible:
            raise ValueError(
                "spectrum: window is for target: fourier, and its loss is over the visible patches as well: "
                "leave out target and visible, or take spectrum: patch"
            )
        return self

    def build(self, sfreq: float) -> Neuro2vec:
        """Return the system for segments at ``sfreq`` Hz."""
        return Neuro2vec(self, sfreq)


SMALL = Config(model=nets.SMALL, mask=masking.Config(kind="random", ratio=0.3))


class Guess(NamedTuple):
    """What is said about patches, beside what they are; U is F, or 1 for the whole window.

    Attributes
    ----------
    waveform, target : Tensor, shape (B, U, C, N)
        Scaled signal; N is the hop, or the whole window.
    log_magnitude : Tensor or None, shape (B, U, C, K)
    cosine, sine : Tensor or None
        As the head says, of any length.
    """

    waveform: Tensor
    target: Tensor
    log_magnitude: Tensor | None = None
    cosine: Tensor | None = None
    sine: Tensor | None = None


class Neuro2vec(System):
    """``magnitude * L1(log) + phase * (1 - cos) + time * MSE`` over the hidden patches, a mean per row."""

    def __init__(self, config: Config, sfreq: float) -> None:
        super().__init__()
        self.config, self.sfreq = config, sfreq
        c = config.model
        self.net = nets.Net(c)
        width = 3 * n_bins(c.hop) if config.target == "fourier" else c.hop
        self.head = nn.Linear(c.dim, width)
        self._figures = Figures()

    def loss(self, batch: Segments, at: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, its terms, and the effective share of hidden patches."""
        mask = self._mask(batch, at.progress)
        rows, terms = self._terms(self._guess(batch, mask), mask)
        logs = {name: term.mean().detach() for name, term in terms.items()}
        return rows.mean(), logs | {"mask_ratio": mask.float().mean()}

    def begin_validation(self) -> None:
        """Forget the figures collected so far."""
        self._figures = Figures()

    def validate(self, batch: Segments) -> None:
        """Collect losses and figures of the hidden patches, at the masks of the end of a curriculum."""
        mask = self._mask(batch, progress=1.0)
        guess = self._guess(batch, mask)
        rows, terms = self._terms(guess, mask)
        self._figures.add({"loss": rows, "mask_ratio": mask.float()} | terms)
        target, hidden = self.net.scaled(batch.x), mask.transpose(1, 2)  # (B, F, C, hop), (B, F, C)
        signal = target.transpose(1, 2).flatten(2)  # (B, C, T)
        made = patches(guess.waveform.transpose(1, 2).flatten(2), self.config.model.hop)
        lines = patches(masking.bridged(signal, mask), self.config.model.hop)
        self._figures.add(
            {
                "explained": explained(made, target, hidden),
                "interpolated": explained(lines, target, hidden),
                "log_spectral_db": self._spectral_error(guess, made, target, hidden),
                "log_spectral_db_interpolated": _spectral(lines, target, hidden),
            }
        )

    def end_validation(self) -> dict[str, float]:
        """Return the means over rows.

        ``explained``: share of the hidden waveform's power that is explained, below 0 where silence would
        have been the better guess; ``log_spectral_db``: mean absolute error of its magnitudes, dB;
        ``interpolated`` and ``..._interpolated``: the same of straight lines over what is hidden.
        """
        return self._figures.means()

    def parts(self) -> dict[str, nn.Module]:
        """Return ``backbone`` at the configured montage."""
        return {"backbone": Backbone(self.config.model, self.net).eval()}

    def _mask(self, batch: Segments, progress: float) -> Tensor:
        c = self.config.model
        return masking.mask(self.config.mask, batch, c.hop, self.sfreq, c.stype, progress)

    def _guess(self, batch: Segments, mask: Tensor) -> Guess:
        """Return what the net says of every patch, or of every electrode's window."""
        said: Tensor = self.head(self.net.sequence(batch.x, batch.positions, mask)).float()
        target = self.net.scaled(batch.x)  # (B, F, C, hop)
        if self.config.target == "time":
            return Guess(said, target)
        log_magnitude, cosine, sine = said.chunk(3, dim=-1)  # (B, F, C, K) each
        if self.config.spectrum == "window":
            target = target.transpose(1, 2).flatten(2)[:, None]  # (B, 1, C, T)
            log_magnitude, cosine, sine = (
                laid_out(each.transpose(1, 2), target.shape[-1])[:, None]
                for each in (log_magnitude, cosine, sine)
            )
        made = waveform(polar(log_magnitude, cosine, sine), target.shape[-1])
        return Guess(made, target, log_magnitude, cosine, sine)

    def _terms(self, guess: Guess, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each row (B,) and its unweighted terms over the hidden patches, each (B,)."""
        w, hidden = self.config.weights, mask.transpose(1, 2)  # (B, F, C)
        if self.config.spectrum == "window":
            hidden = hidden[:, :1].new_ones(hidden[:, :1].shape)  # the window of every electrode
        error = (guess.waveform - guess.target).square().mean(dim=-1)
        each = {"time": error / _power(guess.target)}  # (B, U, C)
        total = each["time"]
        if guess.log_magnitude is not None and guess.cosine is not None and guess.sine is not None:
            target = spectrum(guess.target, taper=False)
            each["magnitude"] = magnitude_loss(guess.log_magnitude, target)
            each["phase"] = phase_loss(guess.cosine, guess.sine, target)
            total = w.magnitude * each["magnitude"] + w.phase * each["phase"] + w.time * each["time"]
        rows = _mean(total, hidden)
        if self.config.visible:
            rows = rows + self.config.visible * _mean(total, ~hidden)
        return rows, {name: _mean(value, hidden) for name, value in each.items()}

    def _spectral_error(self, guess: Guess, made: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
        """Return the magnitudes' error (B,) in dB, of the head's own magnitudes where there are such."""
        if guess.log_magnitude is None or self.config.spectrum == "window":
            return _spectral(made, target, hidden)
        return DB * _mean(magnitude_loss(guess.log_magnitude, spectrum(target, taper=False)), hidden)


def explained(made: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Return the share of the hidden patches' power that is explained, per row.

    Each electrode counts by its power relative to that of its segment.

    Parameters
    ----------
    made, target : Tensor, shape (B, F, C, hop)
    hidden : Tensor, shape (B, F, C), bool

    Returns
    -------
    Tensor, shape (B,)
        1 is all of it, 0 as much as silence explains.
    """
    level = _power(target)
    error = ((made - target).square().mean(dim=-1) / level * hidden).sum(dim=(1, 2))
    power = (target.square().mean(dim=-1) / level * hidden).sum(dim=(1, 2))
    return 1 - error / power.clamp(min=FLOOR)


def _power(target: Tensor) -> Tensor:
    """Return each electrode's mean power, at least `SILENCE`: (B, U, C, N) -> (B, 1, C)."""
    return target.square().mean(dim=(1, 3))[:, None].clamp(min=SILENCE)


def _mean(value: Tensor, where: Tensor) -> Tensor:
    """Return the mean of (B, U, C) over the places ``where`` of each row, (B,); 0 where there is none."""
    return (value * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2)).clamp(min=1)


def _spectral(made: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Return the mean absolute error of the log magnitudes of the hidden patches, dB, (B,)."""
    said = spectrum(made, taper=False).log_magnitude
    return DB * _mean(magnitude_loss(said, spectrum(target, taper=False)), hidden)
