"""A net that looks at a whole window, on the state contract: its state is the window.

::

    state (B, C, window - hop) ++ x (B, C, hop) ─ the net, over the whole window ─ logits
            └──────── its last window - hop samples are the next state

Any net of braindecode runs so: EEGNet (Lawhern et al., J. Neural Eng. 15, 2018), ShallowFBCSPNet and Deep4Net
(Schirrmeister et al., Hum. Brain Mapp. 38, 2017), EEGConformer, ATCNet, Labram, CBraMod and the others.  A
decision costs the whole window, where a net with state of its own costs one hop.

Nothing is scaled here.  These nets expect about unit variance, which the recipe's DSP list gives: `align`
does, and where there is none a `scale`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from offline.blocks.readout import Readout
from streamer.components import Config as BaseConfig

State = tuple[Tensor]
AT_ONCE = 256  # windows per call: a long recording is thousands of them, each with all its samples


class Config(BaseConfig):
    """Settings; lengths in samples at the model's rate.

    Attributes
    ----------
    net : str
        A class of ``braindecode.models``, such as ``EEGNet``.
    params : dict
        Settings of that class other than those that follow from the fields below.
    pretrained : str, optional
        Where its weights begin: a folder, or a repository of the Hugging Face Hub; by default at random.
    n_chans, n_classes : int
    ch_names : tuple of str
        For nets that look at where the electrodes are; may be left out for the others.
    sfreq : float
        Hz.
    window : int
        Samples that a decision is made from.
    hop : int
        Samples per decision.
    """

    kind: Literal["windowed"] = "windowed"
    net: str
    params: dict[str, Any] = Field(default_factory=dict)
    pretrained: str | None = None
    n_chans: PositiveInt
    n_classes: Annotated[int, Field(ge=2)]
    ch_names: tuple[str, ...] = ()
    sfreq: PositiveFloat
    window: PositiveInt
    hop: PositiveInt

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if self.window < self.hop:
            raise ValueError(f"window ({self.window}) must be at least hop ({self.hop}) samples")
        if self.ch_names and len(self.ch_names) != self.n_chans:
            raise ValueError(f"ch_names lists {len(self.ch_names)} channels, n_chans is {self.n_chans}")
        return self

    @property
    def left_context(self) -> int:
        """Samples before a hop that its output depends on: known without building the net."""
        return self.window - self.hop

    def build(self) -> Windowed:
        """Return the net, initialised from torch's global generator or from its pretrained weights.

        Raises
        ------
        MissingDependency
            braindecode is not installed.
        ConfigError
            It has no such net, the net does not take these settings, or its weights are out of reach.
        """
        return Windowed(self)


class Windowed(nn.Module):
    """The net at every hop; x (B, C, T) -> logits (B, T / hop, n_classes), latent (B, T / hop, D).

    Attributes
    ----------
    hop, left_context, delay : int
        Samples.
    n_latent : int
        D.
    readout : Readout
        Which layers give the logits.  The latent is what they read; where the logits are not linear in
        that, the latent is the logits themselves.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        from offline import braindecode_nets

        self.config = config
        self.net = braindecode_nets.build(config)
        self.hop, self.left_context, self.delay = config.hop, config.left_context, 0
        self.readout = Readout.of(self.net, config.n_classes, (config.n_chans, config.window))
        self.n_latent = self.readout.n_latent

    def init_state(self, batch: int) -> State:
        """Return the state before the first sample: silence."""
        like = next(self.net.parameters())
        return (like.new_zeros(batch, self.config.n_chans, self.left_context),)

    def last(self, x: Tensor) -> Tensor:
        """Return the logits (B, n_classes) of windows (B, C, window): what is trained."""
        logits: Tensor = self.net(x)
        return logits

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the outputs for every completed hop of ``x`` (B, C, T) and the new state."""
        joined = torch.cat([state[0], x], dim=2)  # (B, C, window - hop + T)
        windows = joined.unfold(2, self.config.window, self.hop).transpose(1, 2)  # (B, F, C, window)
        batch, n_frames = windows.shape[:2]
        rows = windows.reshape(batch * n_frames, *windows.shape[2:])
        # In a graph a split of free rows is a sequence, behind which no shape is known: CBraMod was refused.
        parts = (rows,) if torch.compiler.is_exporting() else torch.split(rows, AT_ONCE)
        answers = [self.readout.listen(self.net, part) for part in parts]
        logits, latent = (torch.cat(some).reshape(batch, n_frames, -1) for some in zip(*answers, strict=True))
        return {"logits": logits, "latent": latent}, (joined[:, :, joined.shape[2] - self.left_context :],)


SMALL = Config(
    net="EEGNet",
    params={"F1": 4, "D": 2, "kernel_length": 16},
    n_chans=4,
    n_classes=3,
    sfreq=64.0,
    window=64,
    hop=16,
)
