"""EEGNet, trained end to end: the net that a pretrained one has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offline import braindecode_nets
from offline.probe.recipe import EEGNet
from streamer.errors import MissingDependency

Array = NDArray[np.float32]
Labels = NDArray[np.int64]


def require() -> Any:
    """Return braindecode's EEGNet; MissingDependency where it, or what its import takes, is not there."""
    try:
        return braindecode_nets.require().EEGNet
    except MissingDependency as error:
        raise MissingDependency(f"{error} Or take eegnet out of the probe's models.") from error


def train_and_apply(
    config: EEGNet, train: Array, labels: Labels, test: Array, *, sfreq: float, seed: int
) -> NDArray[np.float64]:
    """Train on labelled windows for a fixed number of steps; return the test windows' probabilities.

    Channels are divided by their standard deviation over the labelled windows and classes weigh alike.  The
    first kernel lasts half a second, as Lawhern et al. (J. Neural Eng. 15, 2018) have it, or half a window.

    Parameters
    ----------
    train, test : ndarray, shape (n, n_chans, n_times), float32
    labels : ndarray, shape (n,), int
        Every class occurs.

    Returns
    -------
    ndarray, shape (n_test, n_classes), float64
    """
    scale = train.std(axis=(0, 2), keepdims=True)
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _build(train.shape[1], train.shape[2], int(labels.max()) + 1, sfreq)
        _fit(net, config, torch.from_numpy(train / scale), torch.from_numpy(labels), seed)
    with torch.inference_mode():
        logits = torch.cat([net(part) for part in torch.split(torch.from_numpy(test / scale), 256)])
    return np.asarray(logits.double().softmax(dim=-1).numpy())


def _build(n_chans: int, n_times: int, n_classes: int, sfreq: float) -> Any:
    kernel = round(min(sfreq, n_times) / 2)
    return require()(
        n_chans=n_chans,
        n_outputs=n_classes,
        n_times=n_times,
        kernel_length=kernel,
        final_layer_with_constraint=True,  # as published
    )


def _fit(net: Any, config: EEGNet, x: torch.Tensor, labels: torch.Tensor, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = len(labels) / (labels.bincount().clamp(min=1) * int(labels.max() + 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, config.steps + 1, pct_start=0.2)
    net.train()
    order = np.empty(0, dtype=np.int64)
    for _ in range(config.steps):
        if len(order) < min(config.batch_size, len(labels)):
            order = rng.permutation(len(labels))
        rows, order = torch.from_numpy(order[: config.batch_size]), order[config.batch_size :]
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x[rows]), labels[rows], weight=weight)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    net.eval()
