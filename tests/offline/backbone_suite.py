"""Properties of every backbone on patches, for the tests of each."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree


def signal(model: Any, batch: int = 1, frames: int = 8) -> Any:
    hops = model.left_context // model.hop + frames
    generator = torch.Generator().manual_seed(1)
    return 30 * torch.randn(batch, model.n_chans, hops * model.hop, generator=generator)


def run(model: Any, x: Any, state: Any = None) -> tuple[dict[str, Any], Any]:
    with torch.inference_mode():
        return model(x, model.init_state(len(x)) if state is None else state)


def close(a: Any, b: Any) -> bool:
    return bool(torch.allclose(a, b, rtol=0, atol=5e-6))


def chunked_is_whole(backbone: Any, cuts: list[int]) -> None:
    """Streamed by any number of frames, past every context, latents and state are those of one call."""
    x = signal(backbone, frames=32)
    expected, final = run(backbone, x)
    state, parts, start, turn = backbone.init_state(1), [], 0, 0
    while start < x.shape[-1]:
        n = cuts[turn % len(cuts)] * backbone.hop
        outputs, state = run(backbone, x[..., start : start + n], state)
        parts.append(outputs["latent"])
        start, turn = start + n, turn + 1
    assert close(torch.cat(parts, dim=1), expected["latent"])
    for a, b in zip(pytree.tree_leaves(state), pytree.tree_leaves(final), strict=True):
        assert close(a, b)


def geometry_is_as_said(backbone: Any) -> None:
    """A frame depends on `left_context` samples before its hop, on none before those, and on no future."""
    x = signal(backbone)
    expected = run(backbone, x)[0]["latent"]
    frame = x.shape[-1] // backbone.hop - 2
    first = frame * backbone.hop - backbone.left_context
    assert first > 0
    for sample, seen in ((first - 1, False), (first, True), ((frame + 1) * backbone.hop, False)):
        poked = x.clone()
        poked[..., sample] += 1e4
        moved = not torch.equal(run(backbone, poked)[0]["latent"][:, frame], expected[:, frame])
        assert moved == seen, sample - frame * backbone.hop
