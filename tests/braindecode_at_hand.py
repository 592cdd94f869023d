"""braindecode for tests, wherever it is installed, with or without torchaudio."""

from __future__ import annotations

import importlib.machinery
import sys
import types
import warnings
from typing import Any

import pytest

UNUSED = {
    "torchaudio": (),
    "torchaudio.functional": ("fftconvolve", "filtfilt", "lfilter"),
    "torchaudio.transforms": ("Resample", "Spectrogram"),
}


def braindecode_at_hand() -> Any:
    """Return ``braindecode.models``, or skip; torchaudio, of which nothing is used, need not be there."""
    import torch

    try:
        import torchaudio  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        for name, members in UNUSED.items():
            module = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            for member in members:
                setattr(module, member, type(member, (torch.nn.Module,), {}))
            sys.modules[name] = module
        sys.modules["torchaudio"].__path__ = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("braindecode.models", exc_type=ImportError)
