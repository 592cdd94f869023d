"""Hops do not depend on how the samples arrived."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.framer import Frame, Framer
from streamer.types import Chunk

HOP, LEFT = 10, 25


def cut(data: np.ndarray, valid: np.ndarray, cuts: list[int]) -> list[tuple[Frame, np.ndarray]]:
    """Push the samples in the given chunks; return each frame with a copy of its hop."""
    buffer = np.zeros((1, data.shape[1], HOP), dtype=np.float32)
    framer = Framer(buffer, LEFT)
    edges = [0, *sorted(cuts), len(data)]
    found = []
    for a, b in itertools.pairwise(edges):
        chunk = Chunk(data[a:b], a, np.arange(a, b) / 100.0, valid[a:b])
        found += [(frame, buffer[0].copy()) for frame in framer.frames(chunk)]
    return found


def signal(n: int = 137) -> tuple[np.ndarray, np.ndarray]:
    data = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    return data, np.ones(n, dtype=bool)


@settings(deadline=None)
@given(st.lists(st.integers(0, 137), max_size=40))
def test_any_chunking_gives_the_same_frames(cuts: list[int]) -> None:
    """The frames and their samples are those of one long chunk, for any chunking, empty chunks included."""
    data, valid = signal()
    valid[30:34] = False
    whole, parts = cut(data, valid, []), cut(data, valid, cuts)
    assert [frame for frame, _ in parts] == [frame for frame, _ in whole]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(whole, parts, strict=True))


def test_frames_hold_the_samples_transposed() -> None:
    """Frame i is rows [i * hop, (i + 1) * hop) with channels first, stamped with its last row."""
    data, valid = signal()
    for i, (frame, hop) in enumerate(cut(data, valid, [])):
        assert np.array_equal(hop, data[i * HOP : (i + 1) * HOP].T)
        assert frame.index == (i + 1) * HOP - 1
        assert frame.time == frame.index / 100.0


def test_warm_once_the_left_context_is_there() -> None:
    """With 25 samples of left context and hops of 10, the fourth frame is the first warm one."""
    frames = [frame for frame, _ in cut(*signal(), [])]
    assert [frame.warm for frame in frames[:5]] == [False, False, False, True, True]


def test_invalid_share_covers_the_context_and_passes() -> None:
    """Four bad samples weigh on every frame whose context holds them, and on none after."""
    data, valid = signal()
    valid[52:56] = False
    shares = [frame.invalid for frame, _ in cut(data, valid, [])]
    assert shares[4] == 0
    assert shares[5:9] == [4 / 40] * 4
    assert shares[9] == 0


def test_a_wholly_bad_hop_is_wholly_invalid() -> None:
    """However good its past, a hop without one measured sample is rejected."""
    data, valid = signal()
    valid[50:60] = False
    assert cut(data, valid, [])[5][0].invalid == 1.0
