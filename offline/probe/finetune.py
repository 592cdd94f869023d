"""A pretrained net that goes on learning: backbone and linear head, end to end on the labelled windows.

The head starts as the frozen probe's logistic regression on the same labels (Kumar et al. 2022,
arXiv:2202.10054): from zero, a budget this small ends far below it.  So what is compared with the frozen
probe is what the training of the net adds.

What differs from the frozen probe: a net sees each window behind ``context_s`` of signal from an empty past,
not behind the whole recording, so that every step of the training can afford to compute it again.  Windows
that are tested are seen in the same way.  The budget is fixed; nothing is stopped by looking at anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offline.probe import heads as probe_heads
from offline.probe.features import FLOOR, Signal
from offline.probe.recipe import FineTune, Pool
from offline.probe.tasks import Index, Windows
from streamer.errors import ConfigError

ROWS = 32  # windows per call where nothing is learned; any other number gives the same answers
CLIP = 1.0  # norm of a step's gradient
WARM_UP = 0.1  # share of the steps in which the rates rise


class Crops:
    """Windows with the signal before them, cut from recordings that were played once.

    A crop ends with its window's last sample and holds ``context_s + window_s`` of signal: zeros before a
    recording's first sample and in its holes, up to a hop of zeros in front where those are no whole hops.
    """

    def __init__(self, signal: Signal, windows: Windows, context_s: float) -> None:
        self._windows, self.subjects = windows, windows.subjects
        self._signals: list[NDArray[np.float32]] = []  # (C, T) each
        self._firsts, self._stops = (np.empty(len(windows), dtype=np.int64) for _ in range(2))
        for i, session in enumerate(windows.sessions):
            stretches = signal.stretches(session.recording)
            self._signals.append(np.ascontiguousarray(np.concatenate([one.data for one in stretches]).T))
            times = np.concatenate([one.times for one in stretches])
            begins = np.cumsum([0, *(len(one) for one in stretches)])
            mine = windows.session == i
            stops = np.searchsorted(times, windows.stop_s[mine] + 1e-9, side="right")
            self._stops[mine] = stops
            self._firsts[mine] = begins[np.searchsorted(begins, stops, side="left") - 1]
        window_s = float(np.median(windows.stop_s - windows.start_s))
        self.n_window = round(window_s * signal.sfreq)
        self.n_times = round((context_s + window_s) * signal.sfreq)

    def get(self, rows: Index, hop: int) -> Tensor:
        """Return the crops of windows, (n, C, T) float32 µV, T the next whole number of hops."""
        size = -(-self.n_times // hop) * hop
        x = np.zeros((len(rows), len(self._signals[0]), size), dtype=np.float32)
        for place, row in enumerate(rows):
            stop = self._stops[row]
            first = max(self._firsts[row], stop - self.n_times)
            piece = self._signals[self._windows.session[row]][:, first:stop]
            x[place, :, size - piece.shape[1] :] = piece
        return torch.from_numpy(x)

    def frames(self, hop: int) -> int:
        """Return how many frames, the last ones of a crop, end inside the window."""
        return -(-self.n_window // hop)


def train_and_apply(
    config: FineTune,
    part: Any,
    crops: Crops,
    labelled: Index,
    labels: NDArray[np.int64],
    tested: Index,
    *,
    seed: int,
    by: Pool = "frames",
) -> NDArray[np.float64]:
    """Train a part and a linear head on labelled windows; return the tested windows' probabilities.

    Classes weigh alike.  Rates rise over the first tenth of the steps and then fall along a cosine.  The
    part stays in eval mode: codebooks and whatever else follows a running mean stay as they are.

    Parameters
    ----------
    part : nn.Module
        On the state contract, with an output ``latent``; it is changed.
    labelled, tested : ndarray, shape (n,), (m,), int
        Places of windows.
    labels : ndarray, shape (n,), int
        Of the labelled ones; every class occurs.
    seed : int
        Of the order in which windows are seen.
    by : "frames" or "window"
        See `Reader`.

    Returns
    -------
    ndarray, shape (m, n_classes), float64
    """
    net = Reader(part.eval(), crops.frames(part.hop), by)
    net.start(_batched(net.pooled, crops, labelled, part.hop).numpy(), labels, crops.subjects[labelled])
    _fit(net, config, crops, labelled, torch.from_numpy(labels), seed)
    return np.asarray(_batched(net, crops, tested, part.hop).double().softmax(dim=-1).numpy())


class Reader(nn.Module):
    """A part, its latents pooled over the last frames, standardised by labelled windows, and a linear head.

    By ``frames``, the part is stepped over a crop as over a stream.  By ``window``, a part whose every frame
    sees the whole window looks at the crop once, as such nets were published: a stream offers that latent
    only at the window's last frame, and at the price of a whole window for each frame.

    Where a part also gives its gain, as codecs do, that is pooled beside the latents; no gradient passes
    through it, since it is a code.
    """

    def __init__(self, part: Any, n_frames: int, by: Pool = "frames") -> None:
        super().__init__()
        self.part, self.n_frames, self._by = part, n_frames, by

    def start(self, features: NDArray[np.float32], labels: NDArray[np.int64], who: NDArray[np.str_]) -> None:
        """Make the head that the frozen probe would fit to these features (n, p) of labelled windows."""
        mean, scale = probe_heads.scaling(features)
        weight, bias = probe_heads.linear((features - mean) / scale, labels, who)
        self.head = nn.Linear(*reversed(weight.shape))
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight))
            self.head.bias.copy_(torch.from_numpy(bias))
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.from_numpy(scale))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (n, n_classes) of crops (n, C, T)."""
        features = (self.pooled(x) - self.get_buffer("mean")) / self.get_buffer("scale")
        logits: Tensor = self.head(features)
        return logits

    def pooled(self, x: Tensor) -> Tensor:
        """Return mean and log spread over the window's frames, (n, C, T) -> (n, p): see `pool`."""
        if self._by == "window":
            return pool(at_once(self.part, x).float().flatten(2)[:, -self.n_frames :])
        rows = x.flatten(0, 1)[:, None] if self.part.per_channel else x  # (n C, 1, T) or (n, C, T)
        outputs, _ = self.part(rows, self.part.init_state(len(rows)))
        kept = [outputs["latent"], *([outputs["gain"]] if "gain" in outputs else [])]  # (rows, F, [C, [D]])
        framed = [each.float().unflatten(0, (len(x), -1)).movedim(1, 2).flatten(2) for each in kept]
        return pool(torch.cat(framed, dim=2)[:, -self.n_frames :])


def at_once(part: Any, x: Tensor) -> Tensor:
    """Return the latents (n, F, C or M, D) of crops (n, C, T), each taken for one window of the part.

    Raises
    ------
    ConfigError
        A part whose frames do not see the whole window, or whose window is shorter than the crops.
    """
    if getattr(getattr(part, "config", None), "form", None) != "window":
        raise ConfigError("pool: window is for a backbone with `form: window`; leave it out for this one.")
    positions = part.get_buffer("positions")[None].expand(len(x), -1, -1)
    latent: Tensor = part.net.sequence(x, positions)
    return latent


def pooled_crops(part: Any, crops: Crops) -> NDArray[np.float32]:
    """Return every window's features (n, p) from one look at each, as `Reader` pools by ``window``."""
    net = Reader(part.eval(), crops.frames(part.hop), "window")
    return _batched(net.pooled, crops, np.arange(len(crops.subjects)), part.hop).numpy()


def pool(frames: Tensor) -> Tensor:
    """Return mean and log standard deviation over frames, side by side: (n, F, p) -> (n, 2 p)."""
    # Inside the root: where nothing moves, its gradient is finite.
    spread = (frames.var(dim=1, unbiased=False) + FLOOR**2).sqrt().log()
    return torch.cat([frames.mean(dim=1), spread], dim=1)


def _fit(net: Reader, config: FineTune, crops: Crops, rows: Index, labels: Tensor, seed: int) -> None:
    weight = len(labels) / (labels.bincount().clamp(min=1) * net.head.out_features)
    groups = [
        {"params": net.part.parameters(), "lr": config.lr},
        {"params": net.head.parameters(), "lr": config.head_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, config.steps))
    for places in order(len(rows), config.batch_size, config.steps, seed):
        logits = net(crops.get(rows[places], net.part.hop))
        loss = nn.functional.cross_entropy(logits, labels[places], weight=weight)
        if not torch.isfinite(loss):
            raise ConfigError(f"Fine-tuning left the finite numbers: lower lr, now {config.lr:g}.")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        schedule.step()


def rate_share(step: int, steps: int) -> float:
    """Return the share of the full rate at a step: up over the first tenth, then down along a cosine."""
    rising = WARM_UP * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return float(0.5 * (1 + np.cos(np.pi * (step - rising) / (steps - rising))))


def order(n: int, size: int, steps: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the places of each step's windows: every window once before any comes again."""
    rng = np.random.default_rng((seed, n))
    left = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        if len(left) < min(size, n):
            left = rng.permutation(n)
        yield left[:size]
        left = left[size:]


def _batched(net: Callable[[Tensor], Tensor], crops: Crops, rows: Index, hop: int) -> Tensor:
    """Return what ``net`` says of these windows, without learning."""
    with torch.no_grad():
        return torch.cat([net(crops.get(rows[i : i + ROWS], hop)) for i in range(0, len(rows), ROWS)])
