"""The runner owns the state, and only it."""

from __future__ import annotations

import numpy as np

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle
from engine.runner import Runner


def hops(n: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, 1, 8, 10)).astype(np.float32)


def play(runner: Runner, frames: np.ndarray) -> np.ndarray:
    """Step through the frames; return the logits, shape (n, n_classes)."""
    rows = []
    for frame in frames:
        runner.input[:] = frame
        rows.append(runner.step()["logits"].reshape(-1).copy())
    return np.array(rows)


def test_reset_is_fresh(toy: Bundle) -> None:
    """After a reset, at any parity of the step count, the answers are those of a new runner."""
    with OnnxRuntime().open(toy) as backend:
        fresh = play(Runner(backend), hops(6))
        for before in (1, 2, 3):
            runner = Runner(backend)
            play(runner, hops(before))
            runner.reset()
            assert np.array_equal(play(runner, hops(6)), fresh)


def test_warm_up_leaves_no_trace(toy: Bundle) -> None:
    """A warmed-up runner answers as one that was not."""
    with OnnxRuntime().open(toy) as backend:
        cold, warm = Runner(backend), Runner(backend)
        warm.input[:] = 3.0
        warm.warm_up()
        assert np.array_equal(play(warm, hops(4)), play(cold, hops(4)))


def test_restore_goes_back(toy: Bundle) -> None:
    """From a snapshot the same hops give the same answers again."""
    with OnnxRuntime().open(toy) as backend:
        runner = Runner(backend)
        play(runner, hops(3))
        saved = runner.snapshot()
        first = play(runner, hops(5))
        runner.restore(saved)
        assert np.array_equal(play(runner, hops(5)), first)


def test_a_held_row_keeps_its_state(toy_rows: Bundle) -> None:
    """A row that is held at some steps answers, at the others, as one that stood still meanwhile."""
    frames = hops(6)
    with OnnxRuntime().open(toy_rows) as one:
        alone = play(Runner(one), frames)
    with OnnxRuntime().open(toy_rows.batched(3)) as backend:
        runner = Runner(backend)
        turns, heard = [0, 0, 0], [[], [], []]  # row 1 moves at every second step, row 2 at the first two
        for i in range(12):
            moves = [row for row, now in enumerate((i < 6, i % 2 == 0, i < 2)) if now]
            for row in range(3):
                runner.input[row] = frames[turns[row], 0] if row in moves else 9.0
            outputs = runner.step([row for row in range(3) if row not in moves])
            for row in moves:
                heard[row].append(outputs["logits"][row].reshape(-1).copy())
                turns[row] += 1
    for row, n in enumerate((6, 6, 2)):
        np.testing.assert_allclose(heard[row], alone[:n], atol=1e-6)


def test_reset_of_a_row_leaves_the_others(toy_rows: Bundle) -> None:
    """After it that row is fresh, and the others go on."""
    with OnnxRuntime().open(toy_rows.batched(3)) as backend:
        runner = Runner(backend)
        play(runner, hops(3))
        going_on = runner.snapshot()
        runner.reset([1])
        for before, after in zip(going_on, runner.snapshot(), strict=True):
            assert before[1].any()
            assert not after[1].any()
            assert np.array_equal(after[[0, 2]], before[[0, 2]])


def test_two_runners_share_nothing(toy: Bundle) -> None:
    """Runners over one backend do not see each other's state."""
    with OnnxRuntime().open(toy) as backend:
        alone = play(Runner(backend), hops(4))
        a, b = Runner(backend), Runner(backend)
        for i, frame in enumerate(hops(4)):
            play(b, 5 * frame[None])
            assert np.array_equal(play(a, frame[None])[0], alone[i])
