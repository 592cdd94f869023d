"""The loop under every IIR filter: SciPy's own, with and without the checks of its public function."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy import signal
from stepping import apply, eeg

from streamer.dsp import _sos
from streamer.dsp.bandpass import Config

NOISE = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    _sos.loop.cache_clear()
    yield
    _sos.loop.cache_clear()


def filtered() -> Any:
    return apply(Config(low=4, high=40), NOISE, eeg(*"abcde")).data


def test_both_loops_filter_alike() -> None:
    """Bit for bit, samples and state."""
    sos = signal.butter(4, (4, 40), "bandpass", fs=250, output="sos")
    made = []
    for loop in (_sos.loop(), _sos.checked_loop):
        x, zi = NOISE.T.astype(float, order="C"), np.ones((5, len(sos), 2))
        loop(sos, x, zi)
        made.append((x, zi))
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(one, other)


def wrong(_sos: Any, x: Any, _zi: Any) -> None:
    x += 1


def other_arguments(_sos: Any) -> None:
    """Nothing."""


@pytest.mark.parametrize("loop", [wrong, other_arguments])
def test_a_loop_that_is_not_what_it_was_is_not_used(
    loop: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SciPy whose private loop computes or takes something else is answered by its public function."""
    expected = filtered()
    monkeypatch.setattr("scipy.signal._sosfilt._sosfilt", loop)
    _sos.loop.cache_clear()
    assert _sos.loop() is _sos.checked_loop
    np.testing.assert_array_equal(filtered(), expected)


def test_without_the_private_module_the_public_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SciPy that has moved it filters all the same."""
    found = builtins.__import__

    def moved(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "scipy.signal._sosfilt":
            raise ImportError(name)
        return found(name, *args, **kwargs)

    expected = filtered()
    _sos.loop.cache_clear()
    monkeypatch.setattr(builtins, "__import__", moved)
    assert _sos.loop() is _sos.checked_loop
    np.testing.assert_array_equal(filtered(), expected)
