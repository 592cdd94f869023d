"""braindecode's nets by name: found, built for our channels and windows, or refused in words."""

from __future__ import annotations

import difflib
import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from streamer.errors import ConfigError, MissingDependency
from streamer.montage import located, positions

if TYPE_CHECKING:
    from offline.models.windowed import Config

log = logging.getLogger(__name__)

HEAD_M = 0.095  # radius of the head that electrodes lie on, metres
OURS = ("n_outputs", "n_chans", "n_times", "chs_info", "sfreq", "input_window_seconds")


def names() -> list[str]:
    """Return the names of all nets of the braindecode that is installed."""
    models = require()
    known = [name for name in models.__all__ if inspect.isclass(getattr(models, name))]
    return sorted(name for name in known if issubclass(getattr(models, name), nn.Module))


def require() -> Any:
    """Return ``braindecode.models``; MissingDependency where it, or what its import takes, is not there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its other models warn of at import
            import braindecode.models
    except ImportError as error:
        raise MissingDependency(
            f"This net comes from braindecode, which cannot be imported here ({error}): "
            "pip install 'bcistream[baselines]', with a torchaudio that fits this torch."
        ) from error
    return braindecode.models


def build(config: Config) -> nn.Module:
    """Return the net of a config, weights at random or pretrained; (B, C, window) -> (B, n_classes).

    Raises
    ------
    MissingDependency
        braindecode, or what it needs to fetch weights, is not installed.
    ConfigError
        No such net, settings that it does not take, weights out of reach, or an answer of another shape.
    """
    cls = _class(config.net)
    _check_params(cls, config)
    given = {
        "n_outputs": config.n_classes,
        "n_chans": config.n_chans,
        "n_times": config.window,
        "sfreq": config.sfreq,
        **({"chs_info": channels(config.ch_names, config.sfreq)} if config.ch_names else {}),
        **config.params,
    }
    where = (
        f"{config.net} for {config.n_chans} channels and windows of {config.window} samples at "
        f"{config.sfreq:g} Hz"
    )
    with _said(where):
        net = _pretrained(cls, config, given) if config.pretrained else _made(cls, config, given, where)
    if config.ch_names and "ch_names" in inspect.signature(net.forward).parameters:
        net = Named(net, config.ch_names)
    shape = _answer(net, config, where)
    if len(shape) == 3 and shape[:2] == (2, config.n_classes):
        return Cropped(net)
    if shape != (2, config.n_classes):
        raise ConfigError(
            f"{where} answers 2 windows with {shape}, not with (2, {config.n_classes}): it is no classifier "
            "of windows; choose another net, or settings that make it one."
        )
    return net


class Named(nn.Module):
    """A net that is told with every window which electrodes it is of: Labram finds its places for them."""

    def __init__(self, net: nn.Module, ch_names: tuple[str, ...]) -> None:
        super().__init__()
        self.net, self.ch_names = net, list(ch_names)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, n_classes) of windows (B, C, window)."""
        logits: Tensor = self.net(x, ch_names=self.ch_names)
        return logits


class Cropped(nn.Module):
    """A net with an answer for every crop of its window, (B, n_classes, n): the mean over them counts.

    So the answers of Schirrmeister et al. (Hum. Brain Mapp. 38, 2017, "cropped training") are scored.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, n_classes) of windows (B, C, window)."""
        logits: Tensor = self.net(x).mean(dim=2)
        return logits


def channels(ch_names: tuple[str, ...], sfreq: float) -> list[dict[str, Any]]:
    """Return MNE's description of channels, with the places of those that the 10-05 system knows."""
    import mne

    info = mne.create_info(list(ch_names), sfreq, "eeg")
    for one in info["chs"]:
        if located(one["ch_name"]):
            one["loc"][:3] = HEAD_M * positions([one["ch_name"]])[0]
    described: list[dict[str, Any]] = info["chs"]
    return described


def _class(name: str) -> Any:
    known = names()
    if name not in known:
        by_lower = {each.lower(): each for each in known}
        near = [by_lower[each] for each in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
        meant = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ConfigError(f"braindecode has no net {name!r}{meant} It has: {', '.join(known)}.")
    return getattr(require(), name)


def _check_params(cls: Any, config: Config) -> None:
    if ours := [name for name in config.params if name in OURS]:
        raise ConfigError(
            f"model.params sets {', '.join(ours)} of {config.net}, which follows from n_classes, n_chans, "
            "ch_names, sfreq and window of the model: leave it out."
        )
    taken = [name for name in inspect.signature(cls).parameters if name not in OURS]
    for name in config.params:
        if name not in taken:
            near = difflib.get_close_matches(name, taken, n=1)
            meant = f"; did you mean {near[0]}?" if near else "."
            raise ConfigError(f"{config.net} has no setting {name!r}{meant} It has: {', '.join(taken)}.")


@contextmanager
def _said(where: str) -> Iterator[None]:
    """Log what braindecode warns of, but for what it will call otherwise some day."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    told = [each for each in caught if not issubclass(each.category, (DeprecationWarning, FutureWarning))]
    for text in dict.fromkeys(str(each.message) for each in told):
        log.warning("%s: %s", where, text)


def _made(cls: Any, config: Config, given: dict[str, Any], where: str) -> nn.Module:
    taken = inspect.signature(cls).parameters
    try:
        net: nn.Module = cls(**{name: value for name, value in given.items() if name in taken})
    except Exception as error:  # sixty nets refuse in as many ways
        raise _refused(f"Cannot build {where}", error, config) from error
    return net


def _refused(problem: str, error: Exception, config: Config) -> ConfigError:
    """Return the net's own complaint with what to change: it seldom says that in our words."""
    taken, window = inspect.signature(_class(config.net)).parameters, config.window
    patch = config.params.get("patch_size", getattr(taken.get("patch_size"), "default", None))
    if isinstance(patch, int) and patch > 0 and window % patch:
        whole = [n * patch for n in (window // patch, window // patch + 1) if n]
        lengths = " or ".join(f"{n} ({n / config.sfreq:g} s)" for n in whole)
        change = f"It looks at patches of {patch} samples: set model.window to {lengths}, as cut.window_s."
    else:
        own = ", ".join(name for name in taken if name not in OURS)
        change = (
            "Set model.window (as cut.window_s) or the channels to what it takes, or one of its own settings "
            f"under model.params ({own}); or choose another net."
        )
    return ConfigError(f"{problem}: {type(error).__name__}: {error}. {change}")


def _pretrained(cls: Any, config: Config, given: dict[str, Any]) -> nn.Module:
    if find_spec("huggingface_hub") is None:
        raise MissingDependency(
            f"Pretrained weights of {config.net} are read by huggingface_hub, not installed here: "
            "pip install 'braindecode[hub]'; or leave model.pretrained out to begin at random."
        )
    taken = inspect.signature(cls).parameters
    try:
        net: nn.Module = cls.from_pretrained(
            config.pretrained, **{name: value for name, value in given.items() if name in taken}
        )
    except Exception as error:  # network, names, shapes: as many kinds as libraries below
        raise ConfigError(
            f"Cannot read the weights {config.pretrained!r} for {config.net}: {type(error).__name__}: "
            f"{error}. model.pretrained is a folder, or a repository of the Hugging Face Hub and needs a "
            "network the first time; the weights must be of this net, for the channels and samples it takes."
        ) from error
    return net


def _answer(net: nn.Module, config: Config, where: str) -> tuple[int, ...]:
    """Return the shape of what the net says of two windows; empty where that is no tensor."""
    was_training = net.training
    try:
        with torch.no_grad(), _said(where):
            answer = net.eval()(torch.zeros(2, config.n_chans, config.window))
    except Exception as error:  # a shape that it finds out about only here
        raise _refused(f"Cannot run {where}", error, config) from error
    finally:
        net.train(was_training)
    return tuple(answer.shape) if isinstance(answer, Tensor) else ()
