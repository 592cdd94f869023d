"""Attention with a bounded cache, and the blocks made of it."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from offline.blocks.attention import Attention, Block, CausalAttention, rotate  # noqa: E402

CONTEXT = 5


@pytest.fixture
def attention() -> Any:
    """Two heads, five frames of context."""
    torch.manual_seed(0)
    return CausalAttention(8, 2, CONTEXT).eval()


def tokens(*shape: int, seed: int = 1) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(layer: Any, x: Any, state: Any = None) -> tuple[Any, Any]:
    with torch.inference_mode():
        return layer(x, layer.init_state(x.shape[0], x.shape[1]) if state is None else state)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 7, 11])
def test_chunks_longer_and_shorter_than_the_context_equal_one_call(attention: Any, chunk: int) -> None:
    """The cache is trimmed after attending: chunks of any length give the output and state of one call."""
    x = tokens(2, 3, 23, 8)
    expected, final = run(attention, x)
    state, parts = attention.init_state(2, 3), []
    for start in range(0, 23, chunk):
        y, state = run(attention, x[:, :, start : start + chunk], state)
        parts.append(y)
    assert torch.allclose(torch.cat(parts, dim=2), expected, rtol=0, atol=1e-6)
    for a, b in zip(state, final, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


def test_it_equals_attention_over_exactly_the_context(attention: Any) -> None:
    """Each frame's output is plain attention over the last `context` frames, fewer at the start."""
    x = tokens(1, 1, 12, 8)
    got, _ = run(attention, x)
    with torch.inference_mode():
        for frame in range(12):
            window = x[:, 0, max(0, frame - CONTEXT + 1) : frame + 1]
            q, k, v = attention.split(window)
            places = torch.arange(window.shape[1], dtype=torch.float32)
            y = F.scaled_dot_product_attention(rotate(q, places), rotate(k, places), v)
            assert torch.allclose(attention.join(y)[:, -1], got[:, 0, frame], rtol=0, atol=1e-6)


def test_what_lies_outside_the_context_changes_nothing(attention: Any) -> None:
    """A frame sees `context` frames up to itself, to the bit: none earlier, none later."""
    x = tokens(1, 1, 12, 8)
    expected, _ = run(attention, x)
    changed = x.clone()
    changed[:, :, 6] += 3.0
    moved = (run(attention, changed)[0] != expected).any(dim=-1)[0, 0]
    assert moved.nonzero().flatten().tolist() == list(range(6, 6 + CONTEXT))


def test_groups_and_rows_do_not_see_each_other(attention: Any) -> None:
    """Editing one electrode of one row moves that electrode of that row only."""
    x = tokens(2, 3, 6, 8)
    changed = x.clone()
    changed[1, 2] += 1.0
    moved = (run(attention, changed)[0] != run(attention, x)[0]).any(dim=-1).any(dim=-1)
    assert moved.nonzero().tolist() == [[1, 2]]


def test_a_day_of_steps_leaves_positions_and_cache_where_they_were(attention: Any) -> None:
    """Positions belong to the window: the same frames give the same bits, however long the stream has run."""
    start = run(attention, tokens(1, 1, 7, 8))[1]
    late = (*start[:2], start[2].clone())
    x = tokens(1, 1, 2, 8, seed=3)
    expected, _ = run(attention, x, start)
    for _ in range(300):  # the state of step 300 differs from that of step 1 in nothing but its content
        late = run(attention, tokens(1, 1, 1, 8, seed=5), late)[1]
        assert [leaf.shape for leaf in late] == [leaf.shape for leaf in start]
        assert int(late[2]) == CONTEXT - 1
    for frame in range(7):
        late = run(attention, tokens(1, 1, 7, 8)[:, :, frame : frame + 1], late)[1]
    again, _ = run(attention, x, late)
    assert torch.allclose(again, expected, rtol=0, atol=1e-6)


def test_scores_know_only_the_distance_between_frames() -> None:
    """Shifting queries and keys alike leaves their scores; shifting one of them does not."""
    q, k = tokens(1, 1, 1, 8), tokens(1, 1, 1, 8, seed=2)

    def score(a: float, b: float) -> Any:
        return (rotate(q, torch.tensor([a])) * rotate(k, torch.tensor([b]))).sum()

    assert torch.allclose(score(9.0, 4.0), score(105.0, 100.0), atol=1e-4)
    assert not torch.allclose(score(9.0, 4.0), score(9.0, 5.0), atol=1e-3)


def test_a_channel_block_keeps_frames_apart_and_order_out() -> None:
    """Over electrodes: other frames change nothing, and electrodes in another order give the same tokens."""
    torch.manual_seed(0)
    block = Block(8, 2, "channel", CONTEXT).eval()
    h = tokens(1, 4, 3, 8)
    with torch.inference_mode():
        expected, state = block(h, ())
        order = torch.tensor([2, 0, 1])
        assert torch.allclose(block(h[:, :, order], ())[0], expected[:, :, order], atol=1e-6)
        changed = h.clone()
        changed[:, 1] += 1.0
        moved = (block(changed, ())[0] != expected).any(dim=-1)
    assert state == ()
    assert moved[0, 1].all()
    assert not moved[0, [0, 2, 3]].any()


def test_a_joint_block_does_not_look_at_hidden_frames() -> None:
    """In a window that is not full yet, slots without signal change nothing."""
    torch.manual_seed(0)
    block = Block(8, 2, "joint", CONTEXT).eval()
    h = tokens(1, 4, 3, 8)
    keep = torch.tensor([[False, False, True, True]])
    changed = h.clone()
    changed[:, :2] = 9.0
    with torch.inference_mode():
        a, b = block(h, (), keep)[0], block(changed, (), keep)[0]
    assert torch.equal(a[:, 2:], b[:, 2:])


def test_mixed_precision_keeps_the_answer_near() -> None:
    """Under bfloat16 autocast the cache keeps its type and the output stays within its precision."""
    torch.manual_seed(0)
    block = Block(8, 2, "time", CONTEXT).eval()
    h = tokens(1, 9, 2, 8)
    with torch.inference_mode():
        expected, exact = block(h, block.init_state(1, 2))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got, state = block(h, block.init_state(1, 2))
    assert [leaf.dtype for leaf in state] == [leaf.dtype for leaf in exact]
    assert torch.allclose(got.float(), expected, atol=0.05)


def test_heads_of_odd_width_are_refused() -> None:
    """Rotation needs pairs."""
    with pytest.raises(ValueError, match="heads"):
        Attention(9, 3)
