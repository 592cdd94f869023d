"""Where a net of somebody else's making reads its answer off: the layers whose sums are its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

MAX_LATENT = 4096  # numbers per window: from more no head is refitted in a second
ROWS = 3  # of the windows that are tried: none of the shapes in a net is likely to be it
CLOSE = 1e-3  # of the logits' size: an answer that is not linear is off by much more
Call = tuple[str, int]  # a layer and which of its calls within a window, from 0


@dataclass(frozen=True, slots=True)
class Readout:
    """The calls of layers whose inputs are the latent; none: the logits are their own latent.

    Attributes
    ----------
    calls : tuple of (str, int)
        Name of a layer and which of its calls.
    n_latent : int
        Numbers per window.
    """

    calls: tuple[Call, ...]
    n_latent: int

    @classmethod
    def of(cls, net: nn.Module, n_classes: int, shape: tuple[int, int]) -> Readout:
        """Find it by trial: the last layer that is as wide as the answer, else all such layers together.

        They are the read-out if the logits are an affine function of what goes into them, and of nothing
        else: whatever window the net sees, feeding another window's inputs to them gives that one's logits.

        Parameters
        ----------
        shape : (int, int)
            Channels and samples of a window.
        """
        was_training, generator = net.training, torch.Generator().manual_seed(0)
        one, two = (torch.randn(ROWS, *shape, generator=generator) for _ in range(2))
        net.eval()
        try:
            with torch.no_grad():
                calls = _heard(net, _layers(net, n_classes), one).order
                for chosen in [calls[-1:], calls] if calls else []:
                    n_latent = _width(net, chosen, one, two)
                    if n_latent is not None:
                        return cls(tuple(chosen), n_latent)
        finally:
            net.train(was_training)
        return cls((), n_classes)

    def listen(self, net: nn.Module, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, n_classes) and latents (B, n_latent) of windows (B, C, window)."""
        if not self.calls:
            logits: Tensor = net(windows)
            return logits, logits
        heard = _heard(net, _named(net, self.calls), windows)
        return heard.answer, heard.latent(self.calls)


@dataclass(slots=True)
class _Heard:
    """What went into the layers listened to, in the order of the calls."""

    order: list[Call] = field(default_factory=list)
    inputs: dict[Call, Tensor] = field(default_factory=dict)
    answer: Tensor = field(default_factory=lambda: torch.empty(0))

    def latent(self, calls: Sequence[Call]) -> Tensor:
        """Return the inputs of those calls side by side, (B, D)."""
        return torch.cat([self.inputs[call].reshape(self.answer.shape[0], -1) for call in calls], dim=1)


def _layers(net: nn.Module, n_classes: int) -> dict[str, nn.Module]:
    """Return the layers, by name, that sum up to as many numbers as there are classes."""
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {
        name: layer
        for name, layer in net.named_modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == n_classes)
        or (isinstance(layer, convolutions) and layer.out_channels == n_classes)
    }


def _named(net: nn.Module, calls: Sequence[Call]) -> dict[str, nn.Module]:
    return {name: net.get_submodule(name) for name, _ in calls}


def _heard(net: nn.Module, layers: dict[str, nn.Module], windows: Tensor) -> _Heard:
    """Run the net and keep what goes into the layers."""
    heard = _Heard()

    def keep(call: Call, given: Tensor) -> Tensor:
        heard.order.append(call)
        heard.inputs[call] = given
        return given

    with _hooked(layers, keep):
        heard.answer = net(windows)
    return heard


def _replayed(net: nn.Module, calls: Sequence[Call], windows: Tensor, latent: Tensor) -> Tensor:
    """Run the net on windows, but with this latent (B, D) in place of theirs; return the logits."""
    start = 0

    def replace(call: Call, given: Tensor) -> Tensor:
        nonlocal start
        if call not in calls:
            return given
        width = given.numel() // windows.shape[0]
        part, start = latent[:, start : start + width], start + width
        return part.reshape(given.shape)

    with _hooked(_named(net, calls), replace):
        answer: Tensor = net(windows)
    return answer


@contextmanager
def _hooked(layers: dict[str, nn.Module], swap: Any) -> Iterator[None]:
    """Put ``swap(call, input) -> input`` in front of the layers."""
    counts = dict.fromkeys(layers, 0)

    def hook(name: str) -> Any:
        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            call, counts[name] = (name, counts[name]), counts[name] + 1
            return (swap(call, inputs[0]), *inputs[1:])

        return before

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(hook(name)).remove)
        yield


def _width(net: nn.Module, calls: Sequence[Call], one: Tensor, two: Tensor) -> int | None:
    """Return the width of the latent; None where the logits are no affine function of it alone."""
    first, second = (_heard(net, _named(net, calls), x) for x in (one, two))
    if any(given.numel() % ROWS for given in first.inputs.values()):
        return None
    a, b = first.latent(calls), second.latent(calls)
    if a.shape[1] > MAX_LATENT:
        return None
    swapped = _replayed(net, calls, one, b)
    beyond = _replayed(net, calls, one, 2 * b - a)
    size = CLOSE * max(1e-3, float(torch.stack([first.answer, second.answer]).abs().max()))
    alone = bool((swapped - second.answer).abs().max() <= size)
    affine = bool((beyond - (2 * second.answer - first.answer)).abs().max() <= size)
    return a.shape[1] if alone and affine else None
