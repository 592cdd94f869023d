"""Convolutional encoder and decoder in the style of SEANet, every layer causal and with carried state.

Tagliasacchi et al. 2020 (arXiv:2009.02095), in the form of EnCodec (Défossez et al. 2022, arXiv:2210.13438).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from offline.blocks.conv import CausalConv1d, CausalConvTranspose1d, Pad, Past, Stack

KERNEL = 3


def encoder(
    dim: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    latent: int,
    pad: Pad,
    memory: Sequence[nn.Module],
) -> Stack:
    """Return the encoder: (B, 1, T) -> (B, latent, T / product of strides).

    Parameters
    ----------
    dim : int
        Width before the first stride; it doubles at each.
    dilations : sequence of int
        One residual block each, before every stride.
    pad : str
        Of the convolutions: ``zero`` or ``first``.
    memory : sequence of nn.Module
        Layers over frames of width ``dim * 2 ** len(strides)``, before the last convolution.
    """
    layers: list[nn.Module] = [CausalConv1d(1, dim, KERNEL, pad=pad)]
    for stride in strides:
        layers += [Residual(dim, dilation, pad) for dilation in dilations]
        layers.append(Activated(CausalConv1d(dim, 2 * dim, 2 * stride, stride=stride, pad=pad)))
        dim *= 2
    layers += [*memory, Activated(CausalConv1d(dim, latent, KERNEL, pad=pad))]
    return _normed(Stack(layers))


def decoder(
    dim: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    latent: int,
    pad: Pad,
    memory: Sequence[nn.Module],
) -> Stack:
    """Return the encoder's mirror image: (B, latent, F) -> (B, 1, F * product of strides)."""
    width = dim * 2 ** len(strides)
    layers: list[nn.Module] = [CausalConv1d(latent, width, KERNEL, pad=pad), *memory]
    for stride in reversed(strides):
        layers.append(Activated(CausalConvTranspose1d(width, width // 2, 2 * stride, stride)))
        width //= 2
        layers += [Residual(width, dilation, pad) for dilation in dilations]
    layers.append(Activated(CausalConv1d(width, 1, KERNEL, pad=pad)))
    return _normed(Stack(layers))


class Activated(nn.Module):
    """ELU, then a convolution with state."""

    def __init__(self, conv: CausalConv1d | CausalConvTranspose1d) -> None:
        super().__init__()
        self.conv = conv

    def first_input(self, n: int) -> int:
        """Return the first input step that output step n depends on."""
        return self.conv.first_input(n)

    def init_state(self, batch: int) -> Past:
        """Return the convolution's state before the first sample."""
        return self.conv.init_state(batch)

    def forward(self, x: Tensor, past: Past) -> tuple[Tensor, Past]:
        """Return the output and the new state."""
        y: tuple[Tensor, Past] = self.conv(F.elu(x), past)
        return y


class Residual(nn.Module):
    """``x + mix(elu(conv(elu(x))))``: a dilated convolution of three taps, then one of a single tap."""

    def __init__(self, dim: int, dilation: int, pad: Pad) -> None:
        super().__init__()
        self.conv = CausalConv1d(dim, dim, KERNEL, dilation=dilation, pad=pad)
        self.mix = nn.Conv1d(dim, dim, 1)

    def first_input(self, n: int) -> int:
        """Return the first input step that output step n depends on."""
        return self.conv.first_input(n)

    def init_state(self, batch: int) -> Past:
        """Return the convolution's state before the first sample."""
        return self.conv.init_state(batch)

    def forward(self, x: Tensor, past: Past) -> tuple[Tensor, Past]:
        """Return the output (B, D, T) and the new state."""
        y, past = self.conv(F.elu(x), past)
        return x + self.mix(F.elu(y)), past


def fold(module: nn.Module) -> None:
    """Replace each weight norm by the weight it gives, in place: what is exported has nothing to compute."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            # A copy shares the class that holds the parametrised weight, and torch deletes it from there:
            # without a class of its own, folding the copy would break the original.
            shared = type(layer)
            layer.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
            parametrize.remove_parametrizations(layer, "weight")


def _normed(stack: Stack) -> Stack:
    """Give each convolution a weight norm: length and direction per output channel are learned apart."""
    convs: list[Any] = [m for m in stack.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]
    for conv in convs:
        weight_norm(conv, dim=int(isinstance(conv, nn.ConvTranspose1d)))  # where output channels are
    return stack
