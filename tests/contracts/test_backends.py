"""Every backend in `engine.backends` runs these, by existing.

TensorRT runs for real where it and a GPU are; elsewhere over the fake of both, so that what is ours of it is
tested anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import toy_codec
from fake_gpu import FakeMachine
from toy_bundle import KEEP, toy_graph, toy_manifest, weights, write_bundle

from engine.backends import BackendConfig, Buffers, Running, tensorrt
from engine.backends._cuda import PycudaDevice
from engine.bundle import Bundle, load
from engine.compile import Settings, compile_bundle
from streamer.components import modules
from streamer.errors import MissingDependency, PlanError

KINDS = sorted(modules("engine.backends"))
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    graph = toy_graph()
    return load(write_bundle(tmp_path_factory.mktemp("backend"), toy_manifest(graph), graph))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of three rows."""
    return load(toy_codec.write_tokenizer(tmp_path_factory.mktemp("rows"))).sized(("a", "b", "c"))


@pytest.fixture(scope="module", params=KINDS)
def config(
    request: pytest.FixtureRequest, bundle: Bundle, rows: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BackendConfig]:
    """The settings under which a backend opens both bundles."""
    if request.param != "tensorrt":
        yield modules("engine.backends")[request.param].Config(kind=request.param)
        return
    cache = tmp_path_factory.mktemp("plans")
    with pytest.MonkeyPatch.context() as patch:
        try:
            tensorrt.machine(to_run=True)
            PycudaDevice().close()
        except (PlanError, MissingDependency):
            patch.setattr(tensorrt, "machine", lambda to_run: FakeMachine())
        for one in (bundle, rows):
            assert compile_bundle(one.folder, "tensorrt", Settings(cache=cache))["status"] == "ready"
        yield tensorrt.Config(cache=cache)


def fresh(bundle: Bundle) -> Buffers:
    graph = bundle.manifest.graph
    return Buffers(
        np.zeros(graph.input.shape, dtype=np.float32),
        {s.input: np.zeros(s.shape, dtype=s.dtype) for s in graph.state},
        {t.name: np.zeros(t.shape, dtype=t.dtype) for t in graph.outputs},
        {s.output: np.zeros(s.shape, dtype=s.dtype) for s in graph.state},
    )


def test_equals_the_reference_on_values_and_state(config: BackendConfig, bundle: Bundle) -> None:
    """Twenty steps give what the same arithmetic gives in NumPy, outputs and final state."""
    rng = np.random.default_rng(0)
    expected = np.zeros(3)
    with config.open(bundle) as backend:
        buffers = fresh(bundle)
        step = backend.bind(buffers)
        for _ in range(20):
            buffers.input[:] = rng.normal(size=buffers.input.shape)
            expected = KEEP * expected + buffers.input[0].mean(axis=1, dtype=np.float64) @ weights()
            step()
            np.testing.assert_allclose(buffers.outputs["logits"][0, 0], expected, atol=TOLERANCE)
            buffers.state_in["state_0"][:] = buffers.state_out["state_0_out"]
        np.testing.assert_allclose(buffers.state_in["state_0"][0], expected, atol=TOLERANCE)


def test_holds_no_state(config: BackendConfig, bundle: Bundle) -> None:
    """The same buffers give the same outputs, bit for bit, and the inputs are not written to."""
    with config.open(bundle) as backend:
        buffers = fresh(bundle)
        buffers.input[:] = 1.5
        buffers.state_in["state_0"][:] = 0.5
        step = backend.bind(buffers)
        step()
        first = buffers.outputs["logits"].copy()
        step()
        assert np.array_equal(buffers.outputs["logits"], first)
        assert (buffers.input == 1.5).all()
        assert (buffers.state_in["state_0"] == 0.5).all()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("input", np.zeros((1, 8, 11), dtype=np.float32), "'x'"),
        ("input", np.zeros((1, 8, 10)), "float64"),
        ("input", np.zeros((1, 10, 8), dtype=np.float32).transpose(0, 2, 1), "contiguous"),
        ("state_in", {}, "no buffer for 'state_0'"),
        ("outputs", {"logits": np.zeros((1, 3), dtype=np.float32)}, "'logits'"),
    ],
)
def test_wrong_buffers_are_rejected(
    config: BackendConfig, bundle: Bundle, field: str, value: object, said: str
) -> None:
    """A buffer that is missing, misshapen, of another dtype or not contiguous is refused by name."""
    with config.open(bundle) as backend, pytest.raises(ValueError, match=said):
        backend.bind(replace(fresh(bundle), **{field: value}))


def test_close_twice(config: BackendConfig, bundle: Bundle) -> None:
    """Closing a closed backend does nothing."""
    backend = config.open(bundle)
    backend.close()
    backend.close()


def play(runner: Running, seed: int, n: int, hold: tuple[int, ...] = ()) -> list[dict[str, np.ndarray]]:
    """Step over n frames of noise; return copies of the outputs."""
    rng, outputs = np.random.default_rng(seed), []
    for _ in range(n):
        runner.input[:] = rng.normal(scale=20, size=runner.input.shape)
        outputs.append({name: array.copy() for name, array in runner.step(hold).items()})
    return outputs


def equal(ones: list[dict[str, np.ndarray]], others: list[dict[str, np.ndarray]]) -> bool:
    return all(
        np.array_equal(one[name], other[name])
        for one, other in zip(ones, others, strict=True)
        for name in one
    )


def test_a_runner_is_as_bound_buffers(config: BackendConfig, rows: Bundle) -> None:
    """Its outputs are those of `bind` with the state carried over by hand, after a warm-up too."""
    with config.open(rows) as backend:
        runner, buffers = backend.runner(), fresh(rows)
        runner.input[:] = 7.0
        runner.warm_up()
        got = play(runner, seed=0, n=9)
        step, rng = backend.bind(buffers), np.random.default_rng(0)
        for outputs in got:
            buffers.input[:] = rng.normal(scale=20, size=buffers.input.shape)
            step()
            assert equal([outputs], [buffers.outputs])
            for state in rows.manifest.graph.state:
                buffers.state_in[state.input][:] = buffers.state_out[state.output]
        for array, state in zip(runner.snapshot(), rows.manifest.graph.state, strict=True):
            assert np.array_equal(array, buffers.state_in[state.input])


@pytest.mark.parametrize("before", [1, 2, 3])
def test_reset_is_fresh(config: BackendConfig, rows: Bundle, before: int) -> None:
    """After any number of steps a reset answers as a new runner does; another runner is not disturbed."""
    with config.open(rows) as backend:
        expected, runner, beside = play(backend.runner(), 0, 5), backend.runner(), backend.runner()
        play(runner, 1, before)
        runner.reset()
        play(beside, 2, before)
        assert equal(play(runner, 0, 5), expected)


@pytest.mark.parametrize("before", [2, 3])
def test_restore_goes_back(config: BackendConfig, rows: Bundle, before: int) -> None:
    """From a snapshot the same hops give the same answers, at either parity of the steps since."""
    with config.open(rows) as backend:
        runner = backend.runner()
        play(runner, 0, before)
        saved = runner.snapshot()
        first = play(runner, 1, 3)
        runner.restore(saved)
        assert equal(play(runner, 1, 3), first)


@pytest.mark.parametrize("before", [2, 3])
def test_held_rows_keep_their_state(config: BackendConfig, rows: Bundle, before: int) -> None:
    """A row that is held has the state of before, the others that of a step for all."""
    with config.open(rows) as backend:
        runner, free = backend.runner(), backend.runner()
        for one in (runner, free):
            play(one, 0, before)
        old = runner.snapshot()
        play(runner, 1, 1, hold=(1,))
        play(free, 1, 1)
        for held, moved, was in zip(runner.snapshot(), free.snapshot(), old, strict=True):
            assert np.array_equal(held[1], was[1])
            assert np.array_equal(held[[0, 2]], moved[[0, 2]])
            assert not np.array_equal(moved[1], was[1])


@pytest.mark.parametrize("before", [2, 3])
def test_rows_are_reset_by_themselves(config: BackendConfig, rows: Bundle, before: int) -> None:
    """A reset of one row leaves the others as they are."""
    with config.open(rows) as backend:
        runner = backend.runner()
        play(runner, 0, before)
        old = runner.snapshot()
        runner.reset((2,))
        for now, was in zip(runner.snapshot(), old, strict=True):
            assert not now[2].any()
            assert np.array_equal(now[:2], was[:2])
            assert was[2].any()


@pytest.mark.parametrize("row", [3, -4])
def test_rows_that_are_not_there(config: BackendConfig, rows: Bundle, row: int) -> None:
    """A row beyond the last one is an IndexError, never memory of somebody else; -1 is the last one."""
    with config.open(rows) as backend:
        runner = backend.runner()
        play(runner, 0, 2, hold=(-1,))
        assert not any(state[2].any() for state in runner.snapshot())
        with pytest.raises(IndexError):
            runner.step((row,))
        with pytest.raises(IndexError):
            runner.reset((row,))


def test_a_runner_reads_what_is_written_late(config: BackendConfig, bundle: Bundle) -> None:
    """The input buffer is read at the step, not before: what was in it at an earlier step is gone."""
    with config.open(bundle) as backend:
        runner = backend.runner()
        runner.input[:] = 1e6
        runner.input[:] = 1.0
        first = runner.step()["logits"].copy()
        expected = np.ones(8) @ weights()
        np.testing.assert_allclose(first[0, 0], expected, rtol=1e-5)
