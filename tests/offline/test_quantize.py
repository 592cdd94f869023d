"""Properties of the residual quantiser, each beside what the releases do."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import multiprocessing  # noqa: E402

from offline.blocks.quantize import CodeUse, Config, ResidualVQ  # noqa: E402

DISTANCES = ("euclidean", "cosine", "gain_shape")
SCALES = (0.1, 1.0, 10.0, 100.0)
DIM = 8
LATENTS: dict[str, Callable[[Any], Any]] = {
    "isotropic": lambda z: z,
    "anisotropic": lambda z: z * 0.6 ** torch.arange(DIM),
    "off centre": lambda z: z + 3.0,
}


def latents(kind: str = "isotropic", scale: float = 1.0, seed: int = 0) -> Any:
    """(8, 64, DIM): eight rows of 64 tokens."""
    z = torch.randn(8, 64, DIM, generator=torch.Generator().manual_seed(seed))
    return scale * LATENTS[kind](z)


def quantiser(distance: str = "euclidean", **settings: Any) -> ResidualVQ:
    torch.manual_seed(0)
    settings = {"codebooks": 4, "size": 32, "gains": 8, "kmeans_iterations": 5} | settings
    return ResidualVQ(Config.model_validate(settings | {"distance": distance}), DIM)


def fitted(z: Any, distance: str = "euclidean", steps: int = 5, **settings: Any) -> ResidualVQ:
    """A quantiser trained on one batch, in eval mode."""
    rvq = quantiser(distance, **settings).train()
    for step in range(steps):
        rvq(z, rng=np.random.default_rng(step))
    return rvq.eval()


def released_residuals(z: Any, levels: int, size: int) -> list[float]:
    """Residual energies of BrainRVQ as released: unit codes of normalised vectors, off the raw residual."""
    unit = torch.nn.functional.normalize
    residual, energies = z.reshape(-1, DIM), []
    for _ in range(levels):
        target = unit(residual, dim=-1)
        codes = target[:size].clone()
        for _ in range(10):  # spherical k-means
            chosen = (target @ codes.T).argmax(-1)
            sums = torch.zeros_like(codes).index_add_(0, chosen, target)
            codes = torch.where(sums.norm(dim=-1, keepdim=True) > 0, unit(sums, dim=-1), codes)
        residual = residual - codes[(target @ codes.T).argmax(-1)]
        energies.append(float(residual.square().sum() / z.square().sum()))
    return energies


def falls(energies: list[float]) -> bool:
    return all(after < 0.95 * before for before, after in zip([1.0, *energies], energies, strict=False))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", sorted(LATENTS))
@pytest.mark.parametrize("scale", SCALES)
def test_residual_energy_falls_at_every_level(distance: str, kind: str, scale: float) -> None:
    """Once fitted, each level leaves less than the one before it, whatever the scale of its input."""
    z = latents(kind, scale)
    assert falls(fitted(z, distance).residuals(z).tolist())


@pytest.mark.parametrize("scale", SCALES)
def test_residual_energy_does_not_depend_on_scale(scale: float) -> None:
    """A quantiser fitted to k times the vectors leaves the same share of the energy."""
    shares = [fitted(latents(scale=k), "gain_shape").residuals(latents(scale=k)) for k in (1.0, scale)]
    assert torch.allclose(shares[0], shares[1], rtol=0.02)


def test_released_scheme_does_not_shrink_the_residual() -> None:
    """Away from a lucky scale, unit codes leave more than they were given, or nearly all of it."""
    assert released_residuals(latents(scale=0.1), 4, 32)[0] > 1.0
    assert released_residuals(latents(scale=100.0), 4, 32)[-1] > 0.9
    assert not any(falls(released_residuals(latents(scale=k), 4, 32)) for k in (0.1, 100.0))


def clusters(centres: Any, seed: int) -> Any:
    """512 tokens around centres (n, DIM), (8, 64, DIM)."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(centres), (512,), generator=generator)
    return (centres[chosen] + 0.3 * torch.randn(512, DIM, generator=generator)).view(8, 64, DIM)


def before_and_after() -> tuple[Any, Any]:
    """Centres of a narrow cloud, and of a wide one elsewhere."""
    centres = torch.randn(32, DIM, generator=torch.Generator().manual_seed(9))
    return 0.2 * centres - 6.0, 3.0 * centres + 6.0


def use_after_shift(step: Callable[[Any, int], None], encode: Callable[[Any], Any], size: int) -> float:
    """Share of the first level's codes in use after the latents moved elsewhere."""
    for i in range(160):
        step(clusters(before_and_after()[i >= 10], i), i)
    use = CodeUse(size)
    for i in range(20):
        use.add(encode(clusters(before_and_after()[1], 100 + i))[..., :1])
    return use.used[0]


@pytest.mark.parametrize("distance", DISTANCES)
def test_dead_codes_come_back(distance: str) -> None:
    """Latents moved elsewhere; 150 steps later more than 95 % of the code vectors have work again."""
    rvq = quantiser(distance)  # as slow as it is in training

    def step(z: Any, i: int) -> None:
        rvq.train()(z, rng=np.random.default_rng(i))

    def encode(z: Any) -> Any:
        return rvq.eval().levels[0].slots(rvq.encode(z)[..., :1])

    assert use_after_shift(step, encode, rvq.config.size) > 0.95


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_revived_code_stays_where_it_was_put(distance: str) -> None:
    """The next copy of the averages leaves it there, until vectors choose it."""
    level = fitted(latents(), distance).levels[0]
    level.revive(torch.tensor([3]), torch.full((1, DIM), 50.0), 2.0)
    place = level.embed[3].clone()
    z = latents(seed=1).reshape(-1, DIM)
    codes = level.nearest(z)
    others = level.slots(codes) != 3
    level.follow(level.statistics(z[others], codes[others]), 0.9, 0.9)
    assert torch.allclose(level.embed[3], place)


def test_each_distance_chooses_the_best_by_its_own_measure() -> None:
    """The nearest code, the one closest in angle, and the closest in angle with the nearest gain."""
    z = latents("off centre", seed=2).reshape(-1, DIM)
    cosine = torch.nn.functional.cosine_similarity
    euclidean, angle, gain_shape = (fitted(latents("off centre"), each).levels[0] for each in DISTANCES)
    assert torch.equal(euclidean.nearest(z), torch.cdist(z.double(), euclidean.embed.double()).argmin(-1))
    assert torch.equal(angle.nearest(z), cosine(z[:, None], angle.embed[None], dim=-1).argmax(-1))
    codes = gain_shape.nearest(z)
    assert torch.equal(gain_shape.slots(codes), cosine(z[:, None], gain_shape.embed[None], dim=-1).argmax(-1))
    error = (z - gain_shape.vectors(codes)).norm(dim=-1)
    for gain in range(gain_shape.n_gains):
        other = gain_shape.slots(codes) * gain_shape.n_gains + gain
        assert ((z - gain_shape.vectors(other)).norm(dim=-1) >= error - 1e-4).all()


def test_released_order_buries_the_codes_it_revived() -> None:
    """A revived code whose average is not set with it is taken back by the next copy: most stay unused."""
    rvq = quantiser(codebooks=1)
    level = rvq.levels[0]

    def step(z: Any, i: int) -> None:
        flat, rng = z.reshape(-1, DIM), np.random.default_rng(i)
        if not rvq.started:
            rvq._start(flat, rng)
        codes = level.nearest(flat)
        dead = (level.count < 1.6).nonzero().flatten()
        level.embed[dead] = flat[rng.choice(len(flat), len(dead))]  # neither total nor count
        level.follow(level.statistics(flat, codes), 0.9, 0.9)  # and the copy comes after

    assert use_after_shift(step, rvq.encode, rvq.config.size) < 0.7


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_reach_the_input_through_every_level(distance: str) -> None:
    """What each level leaves over pulls at the input, and the output's gradient arrives unchanged."""
    z = latents()
    rvq = fitted(z, distance)
    pulls = []
    for levels in range(1, 5):
        x = z.clone().requires_grad_()
        (pull,) = torch.autograd.grad(rvq._quantized(x, levels).commitment.sum() * levels, x)
        pulls.append(pull)
    for before, after in zip([torch.zeros_like(z), *pulls], pulls, strict=False):
        assert (after - before).norm() > 0.01 * pulls[0].norm()
    x = z.clone().requires_grad_()
    weight = torch.randn_like(z)
    (through,) = torch.autograd.grad((rvq(x).z * weight).sum(), x)
    assert torch.equal(through, weight)


@pytest.mark.parametrize("distance", DISTANCES)
def test_forward_and_encode_agree(distance: str) -> None:
    """The codes of `forward` are those of `encode`, its vectors those of `decode`, its commitment per row."""
    z = latents()
    rvq = fitted(z, distance)
    quantized = rvq(z)
    assert torch.equal(quantized.codes, rvq.encode(z))
    assert torch.allclose(quantized.z, rvq.decode(quantized.codes), atol=1e-5)
    assert int(quantized.codes.max()) < rvq.codebook_size
    assert rvq.bits == pytest.approx(4 * np.log2(rvq.codebook_size))
    assert torch.allclose(quantized.commitment[3:4], rvq(z[3:4]).commitment)


@pytest.mark.parametrize("distance", DISTANCES)
def test_more_levels_decode_closer(distance: str) -> None:
    """The error of decoding from the first k levels falls with k."""
    z = latents()
    rvq = fitted(z, distance)
    codes = rvq.encode(z)
    errors = [float((z - rvq.decode(codes[..., :k])).square().mean()) for k in range(1, 5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_dropout_decodes_from_fewer_levels() -> None:
    """With dropout a training step's output is that of some first levels, drawn by the step's generator."""
    z = latents()
    rvq = fitted(z, dropout=1.0).train()
    seen = set()
    for step in range(12):
        frozen = {name: value.clone() for name, value in rvq.state_dict().items()}
        quantized = rvq(z, rng=np.random.default_rng(step))
        after = {name: value.clone() for name, value in rvq.state_dict().items()}
        rvq.load_state_dict(frozen)
        decoded = [rvq.decode(quantized.codes[..., :k]) for k in range(1, 5)]
        seen.add([torch.allclose(quantized.z, each, atol=1e-5) for each in decoded].index(True))
        rvq.load_state_dict(after)
    assert seen == {0, 1, 2, 3}


def test_eval_changes_nothing() -> None:
    """In eval mode no buffer moves, on the first batch ever as on later ones."""
    rvq = quantiser().eval()
    for rvq_state in (rvq, fitted(latents())):
        before = {name: value.clone() for name, value in rvq_state.state_dict().items()}
        rvq_state(latents(seed=5), rng=np.random.default_rng(0))
        rvq_state.residuals(latents(seed=6))
        assert all(torch.equal(value, before[name]) for name, value in rvq_state.state_dict().items())


def test_training_needs_the_generator_of_the_step() -> None:
    """Without it nothing is drawn from hidden global state: it is refused."""
    with pytest.raises(ValueError, match="pass rng"):
        quantiser().train()(latents())


def test_training_is_a_function_of_batches_and_generators() -> None:
    """Same batches and generators, same codebooks to the bit, whatever torch's global generator stands at."""
    one = fitted(latents()).state_dict()
    torch.manual_seed(77)
    rvq = quantiser().train()
    for step in range(5):
        torch.rand(3)
        rvq(latents(), rng=np.random.default_rng(step))
    assert all(torch.equal(value, one[name]) for name, value in rvq.state_dict().items())


def test_mixed_precision_does_not_reach_the_codes() -> None:
    """Under autocast the codes are those of float32."""
    z = latents()
    rvq = fitted(z)
    expected = rvq.encode(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantized = rvq(z)
        assert torch.equal(rvq.encode(z), expected)
    assert torch.equal(quantized.codes, expected)
    assert quantized.z.dtype == torch.float32


def test_silence_is_quantised() -> None:
    """Batches that are all zeros leave finite codebooks and vectors."""
    z = torch.zeros(8, 64, DIM)
    for distance in DISTANCES:
        rvq = fitted(z, distance).train()
        rvq(latents(), rng=np.random.default_rng(0))
        assert torch.isfinite(rvq(z, rng=np.random.default_rng(1)).z).all()


class Codec(torch.nn.Module):
    """(B, N, D) -> codes, and what they decode to from all levels and from two."""

    def __init__(self, rvq: ResidualVQ) -> None:
        super().__init__()
        self.rvq = rvq

    def forward(self, z: Any) -> tuple[Any, Any, Any]:
        codes = self.rvq.encode(z)
        return codes, self.rvq.decode(codes), self.rvq.decode(codes[..., :2])


@pytest.mark.parametrize("distance", DISTANCES)
def test_exported_codes_are_exact(distance: str) -> None:
    """ONNX Runtime at opset 20 gives every code of torch, and its vectors."""
    import onnxruntime as ort

    z = latents(seed=3)
    codec = Codec(fitted(latents(), distance)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        program = torch.onnx.export(codec, (z,), dynamo=True, opset_version=20, verbose=False)
    buffer = io.BytesIO(program.model_proto.SerializeToString())
    session = ort.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    codes, all_levels, two_levels = session.run(None, {session.get_inputs()[0].name: z.numpy()})
    expected = codec(z)
    assert codes.dtype == np.int64
    assert np.array_equal(codes, expected[0].numpy())
    assert np.allclose(all_levels, expected[1].numpy(), atol=1e-6)
    assert np.allclose(two_levels, expected[2].numpy(), atol=1e-6)


def train_steps(part: slice) -> dict[str, Any]:
    """Ten steps on these rows of ever wider batches; codes die on the way."""
    learned = {}
    for distance in DISTANCES:
        rvq = quantiser(distance, dropout=0.5, decay=0.8).train()
        for step in range(10):
            z = latents("anisotropic", 1.0 + step, seed=step)
            rvq(z[part], rng=np.random.default_rng(step))
        learned |= {f"{distance} {name}": value for name, value in rvq.state_dict().items()}
    return learned


def half_of_it(rank: int, folder: str) -> None:
    """What one of two processes does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(train_steps(slice(4 * rank, 4 * rank + 4)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Half of each batch per process (gloo) gives the codebooks of one process with the whole batch."""
    multiprocessing.spawn(half_of_it, (str(tmp_path),), nprocs=2)
    one = train_steps(slice(None))
    for rank in (0, 1):
        for name, value in torch.load(tmp_path / f"{rank}.pt").items():
            assert torch.allclose(value.double(), one[name].double(), rtol=1e-5, atol=1e-6), name


def test_perplexity() -> None:
    """Even use of all codes has the perplexity of their number, a single code that of 1."""
    use = CodeUse(16)
    even = torch.arange(16).repeat(4)
    use.add(torch.stack([even, torch.full_like(even, 3)], dim=-1)[None])
    use.add(torch.stack([even, torch.full_like(even, 3)], dim=-1))
    assert use.perplexity == pytest.approx([16.0, 1.0])
    assert use.used == pytest.approx([1.0, 1 / 16])
