"""Layers with state: any chunking, resets, the future, and how far back they look."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.utils import _pytree as pytree  # noqa: E402

from offline.blocks.conv import CausalConv1d, CausalConvTranspose1d, CausalPool1d, Stack  # noqa: E402
from offline.blocks.recurrent import Gated, Lstm  # noqa: E402
from offline.blocks.seanet import Activated, Residual, decoder, encoder, fold  # noqa: E402

DIM = 4
LAYERS: dict[str, Any] = {
    "conv": lambda: CausalConv1d(DIM, 3, 5, dilation=3),
    "conv_first": lambda: CausalConv1d(DIM, 3, 5, dilation=3, pad="first"),
    "conv_strided": lambda: CausalConv1d(DIM, 3, 6, stride=3),
    "conv_strided_first": lambda: CausalConv1d(DIM, 3, 6, stride=3, pad="first"),
    "transposed": lambda: CausalConvTranspose1d(DIM, 3, 6, 3),
    "transposed_long": lambda: CausalConvTranspose1d(DIM, 3, 8, 3),
    "transposed_short": lambda: CausalConvTranspose1d(DIM, 3, 3, 3),
    "pool": lambda: CausalPool1d(DIM, 6, 3),
    "residual": lambda: Residual(DIM, 2, "zero"),
    "activated": lambda: Activated(CausalConvTranspose1d(DIM, 3, 4, 2)),
    "lstm": lambda: Lstm(DIM, 2),
    "gated": lambda: Gated(DIM),
    "up_and_down": lambda: Stack([CausalConv1d(DIM, 5, 6, stride=3), CausalConvTranspose1d(5, 3, 6, 3)]),
}
BOUNDED = [name for name in LAYERS if name not in ("lstm", "gated")]
STEP = 3  # every stride divides it
N = 24


@pytest.fixture(scope="module", params=LAYERS)
def layer(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


def make(name: str) -> Any:
    torch.manual_seed(0)
    return LAYERS[name]().eval()


def signal(batch: int = 2) -> Any:
    return torch.randn(batch, DIM, N * STEP, generator=torch.Generator().manual_seed(1))


def whole(layer: Any, x: Any, state: Any = None) -> tuple[Any, Any]:
    with torch.inference_mode():
        return layer(x, layer.init_state(len(x)) if state is None else state)


def close(a: Any, b: Any) -> bool:
    return bool(torch.allclose(a, b, rtol=0, atol=1e-6))


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_any_chunking_equals_one_call(layer: Any, cuts: list[int]) -> None:
    """In chunks shorter and longer than the context, output and final state are those of one call."""
    x = signal()
    expected, expected_state = whole(layer, x)
    state, parts, start, turn = layer.init_state(2), [], 0, 0
    while start < x.shape[-1]:
        n = cuts[turn % len(cuts)] * STEP
        y, state = whole(layer, x[..., start : start + n], state)
        parts.append(y)
        start, turn = start + n, turn + 1
    assert close(torch.cat(parts, dim=-1), expected)
    for a, b in zip(pytree.tree_leaves(state), pytree.tree_leaves(expected_state), strict=True):
        assert close(a, b)


def test_the_future_changes_nothing(layer: Any) -> None:
    """What comes later leaves the output so far as it is, to the bit."""
    x = signal()
    y, _ = whole(layer, x)
    changed = x.clone()
    changed[..., N * STEP // 2 :] = 7.0
    half = y.shape[-1] // 2
    z, _ = whole(layer, changed)
    assert torch.equal(z[..., :half], y[..., :half])
    assert not torch.equal(z[..., half:], y[..., half:])


def test_state_is_zero_and_resets_row_by_row(layer: Any) -> None:
    """The state starts as zeros, batch first; zeroing one row of it restarts that row alone."""
    assert all(len(leaf) == 3 and not leaf.any() for leaf in pytree.tree_leaves(layer.init_state(3)))
    x = signal()
    _, state = whole(layer, x)
    cleared = pytree.tree_map(lambda leaf: torch.cat([torch.zeros_like(leaf[:1]), leaf[1:]]), state)
    mixed, fresh, going_on = (whole(layer, x, s)[0] for s in (cleared, None, state))
    assert close(mixed[0], fresh[0])
    assert close(mixed[1], going_on[1])


@pytest.mark.parametrize("name", BOUNDED)
def test_first_input_is_true(name: str) -> None:
    """An output depends on the first input that the layer names, and on none before it."""
    layer, x = make(name), signal(1)
    y, _ = whole(layer, x)
    for n in range(y.shape[-1] - 5, y.shape[-1]):
        for sample, seen in ((layer.first_input(n) - 1, False), (layer.first_input(n), True)):
            poked = x.clone()
            poked[..., sample] += 100.0
            assert torch.equal(whole(layer, poked)[0][..., n], y[..., n]) is not seen


def test_transposed_equals_torch() -> None:
    """Up to the overlap with what has not come yet, it is torch's own transposed convolution."""
    layer, x = make("transposed_long"), signal()
    with torch.inference_mode():
        expected = torch.nn.ConvTranspose1d.forward(layer, x)
    y, _ = whole(layer, x)
    assert close(y, expected[..., : y.shape[-1]])


def test_padding_with_the_first_sample() -> None:
    """A stream that has always had its first value starts without an edge, with zeros it does not."""
    x = torch.full((1, DIM, 30), 3.0)
    for name, edge in (("conv_first", False), ("conv_strided_first", False), ("conv", True)):
        y, _ = whole(make(name), x)
        assert close(y, y[..., -1:]) is not edge


@pytest.mark.parametrize("name", ["lstm", "gated"])
def test_memory_outlasts_the_chunk(name: str) -> None:
    """What a chunk began with still shows in the next one: the memory is carried, not started again."""
    layer, x = make(name), signal()
    other = x.clone()
    other[..., 0] += 1.0
    states = [whole(layer, start[..., :STEP])[1] for start in (x, other)]
    a, b = (whole(layer, x[..., STEP:], state)[0] for state in states)
    assert not close(a, b)


def test_a_shorter_kernel_than_the_stride_is_refused() -> None:
    """A transposed convolution that would leave samples empty cannot be made."""
    with pytest.raises(ValueError, match="at least the stride"):
        CausalConvTranspose1d(1, 1, 2, 3)


def test_folding_the_weight_norm_changes_no_number() -> None:
    """Folded for export, encoder and decoder compute what they did, from plain weights."""
    torch.manual_seed(0)
    down = encoder(2, (2, 3), (1, 2), 5, "zero", [Lstm(8, 1)]).eval()
    up = decoder(2, (2, 3), (1, 2), 5, "first", [Gated(8)]).eval()
    x = signal(1)[:, :1]
    latent, _ = whole(down, x)
    y, _ = whole(up, latent)
    assert latent.shape == (1, 5, N * STEP // 6)
    assert y.shape == x.shape
    for stack in (down, up):
        fold(stack)
        assert not any("parametrizations" in name for name, _ in stack.named_parameters())
    assert close(whole(down, x)[0], latent)
    assert close(whole(up, latent)[0], y)
