"""Properties of every model found in `offline.models`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from braindecode_at_hand import braindecode_at_hand
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.utils import _pytree as pytree  # noqa: E402

from offline.blocks.quantize import ResidualVQ  # noqa: E402
from offline.export_graph import check_parity, export_step, per_channel  # noqa: E402
from offline.models import kinds  # noqa: E402

CASES = [
    (kind, name)
    for kind, module in sorted(kinds().items())
    for name in ("SMALL", "SMALL_WINDOW")  # the second for a kind that has a form with a window for a state
    if name == "SMALL" or hasattr(module, name)
]
N_HOPS = 12


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def model(request: pytest.FixtureRequest) -> Any:
    """A small model of each kind whose frozen norms are not the identity, so that they cannot hide."""
    torch.manual_seed(0)
    kind, name = request.param
    if kind == "windowed":
        braindecode_at_hand()
    module = kinds()[kind]
    built = (getattr(module, name, None) or module.Config()).build().eval()
    for name, buffer in built.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    for quantiser in [m for m in built.modules() if isinstance(m, ResidualVQ)]:
        spread_codes(built, quantiser)
    return built


def spread_codes(model: Any, quantiser: Any) -> None:
    """Put the codes on what reaches them: far from it, every input would have the same ones."""
    seen, encode = [], quantiser.encode
    quantiser.encode = lambda z: (seen.append(z.clone()), encode(z))[1]
    whole(model, signal(model, batch=4))
    del quantiser.encode
    quantiser.train()(seen[0].flatten(0, -2)[None], rng=np.random.default_rng(0))
    quantiser.eval()


def signal(model: Any, batch: int = 1, more: int = N_HOPS) -> Any:
    """White noise longer than the left context, (B, C, T)."""
    hops = -(-model.left_context // model.hop) + more
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, model.config.n_chans, hops * model.hop, generator=generator)


def whole(model: Any, x: Any, state: Any = None) -> tuple[dict[str, Any], Any]:
    with torch.inference_mode():
        return model(x, model.init_state(len(x)) if state is None else state)


def close(a: Any, b: Any) -> bool:
    if not a.is_floating_point():
        return bool(torch.equal(a, b))  # codes are right or wrong
    return bool(torch.allclose(a, b, rtol=0, atol=2e-6))


@settings(deadline=None, max_examples=10)
@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_any_chunking_equals_one_call(model: Any, cuts: list[int]) -> None:
    """Streamed in chunks of any number of hops, outputs and final state are those of one call."""
    x = signal(model)
    expected, expected_state = whole(model, x)
    state, parts, start, turn = model.init_state(1), [], 0, 0
    while start < x.shape[-1]:
        n = cuts[turn % len(cuts)] * model.hop
        outputs, state = whole(model, x[..., start : start + n], state)
        parts.append(outputs)
        start, turn = start + n, turn + 1
    for name, value in expected.items():
        assert close(torch.cat([part[name] for part in parts], dim=1), value), name
    for a, b in zip(pytree.tree_leaves(state), pytree.tree_leaves(expected_state), strict=True):
        assert close(a, b)


def test_state_starts_at_zero_batch_first(model: Any) -> None:
    """The state before the first sample is zeros, one row per stream."""
    for leaf in pytree.tree_leaves(model.init_state(3)):
        assert leaf.shape[0] == 3
        assert not leaf.any()


def test_the_future_changes_nothing(model: Any) -> None:
    """Outputs up to a hop are bit for bit the same whatever follows it."""
    x = signal(model)
    cut = x.shape[-1] // model.hop // 2
    changed = x.clone()
    changed[..., cut * model.hop :] = 7.0
    before, after = whole(model, x)[0], whole(model, changed)[0]
    for name in before:
        assert torch.equal(before[name][:, :cut], after[name][:, :cut]), name
        assert not torch.equal(before[name][:, cut:], after[name][:, cut:]), name


def test_batch_rows_are_independent(model: Any) -> None:
    """What one stream sees does not touch another stream of the batch."""
    x = signal(model, batch=2)
    other = x.clone()
    other[1] = 5.0 * other[1] + 1.0
    a, b = whole(model, x)[0], whole(model, other)[0]
    for name in a:
        assert close(a[name][0], b[name][0]), name
        assert not close(a[name][1], b[name][1]), name


def test_reset_of_one_row_leaves_the_others(model: Any) -> None:
    """Zeroing one row of the state restarts that stream and no other."""
    x = signal(model, batch=2)
    half = x.shape[-1] // model.hop // 2 * model.hop
    _, state = whole(model, x[..., :half])
    leaves, spec = pytree.tree_flatten(state)
    cleared = [torch.cat([torch.zeros_like(leaf[:1]), leaf[1:]]) for leaf in leaves]
    mixed, _ = whole(model, x[..., half:], pytree.tree_unflatten(cleared, spec))
    fresh, _ = whole(model, x[..., half:])
    going_on, _ = whole(model, x[..., half:], state)
    for name in mixed:
        assert close(mixed[name][0], fresh[name][0]), name
        assert close(mixed[name][1], going_on[name][1]), name


def test_geometry_is_true(model: Any) -> None:
    """An output exists per hop; they depend on `left_context` samples before it and on none before those.

    One output may see less than another, a gain less than a latent.  A model that is not `bounded` has a
    memory, for which there is no "none before those".
    """
    x = signal(model)
    outputs, _ = whole(model, x)
    frame = x.shape[-1] // model.hop - 1
    first = frame * model.hop - model.left_context
    assert first > 0, "the signal is long enough to look before the context"
    assert all(value.shape[1] == frame + 1 for value in outputs.values())
    for sample, seen in ((first - 1, False), (first, True), (frame * model.hop + model.hop - 1, True)):
        poked = x.clone()
        poked[..., sample] += 1e3
        changed, _ = whole(model, poked)
        moved = [not torch.equal(changed[name][:, frame], value[:, frame]) for name, value in outputs.items()]
        if seen or getattr(model, "bounded", True):
            assert any(moved) == seen, f"sample {sample - frame * model.hop} relative to the hop"
    assert model.delay == 0, "a model that lags needs its own test of the lag"


def test_exported_step_equals_the_model(model: Any) -> None:
    """ONNX Runtime, stepped hop by hop, gives the model's values and final state, at one row and at more."""
    content, graph = export_step(model, model.config.n_chans)
    assert graph.rows == ("one" if per_channel(model) else "free")
    signals = [signal(model, batch).numpy().astype(np.float32) for batch in (1, 5)]
    assert check_parity(model, content, graph, signals) < 1e-5
