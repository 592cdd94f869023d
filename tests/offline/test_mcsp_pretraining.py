"""MCSP's pretraining: which rows have which terms, what moves when, and the same curve however it is run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("webdataset")

from safetensors.torch import load_file  # noqa: E402
from torch import Tensor  # noqa: E402

from offline.data.prepare import parse as parse_corpus  # noqa: E402
from offline.data.prepare import prepare  # noqa: E402
from offline.pretrain.data import Micros, PretrainData  # noqa: E402
from offline.pretrain.pretrain import pretrain  # noqa: E402
from offline.pretrain.recipe import PretrainRecipe, parse  # noqa: E402
from offline.runs import load_run, load_system  # noqa: E402
from offline.systems import Group, Moment, Segments, SystemConfig  # noqa: E402
from offline.systems.mcsp import MCSP, Config  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402

TINY: dict[str, Any] = {"dim": 8, "layers": 1, "filters": 2, "width": 4, "kernel": 5, "dilations": [1]}
FMRI = TINY | {"nodes": {"five": 5, "four": 4}}
SYSTEM: dict[str, Any] = {
    "kind": "mcsp",
    "eeg": TINY
    | {"sfreq": 160.0, "bands": [[5, 20], [20, 45]], "hop": 8, "window": 40, "forget_s": 0.5}
    | {"strides": [2, 4], "nodes": {"five": 5}},
    "fmri": FMRI,
    "projection": 6,
    "queue": 24,
    "momentum": 0.9,
}
AT = Moment(0, 10, 0)
Recipe = Callable[..., PretrainRecipe]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, run_writer: Callable[..., Path]) -> Path:
    """Shards of A1 to A3, connectomes of p0 to p7 in both modalities and fMRI of A1, series of f0 to f3."""
    folder = tmp_path_factory.mktemp("people")
    for i, subject in enumerate(("A1", "A2", "A3")):
        run_writer(folder / "corpus" / subject / f"{subject}R1.npz", seed=i)
    shards = {"stype": "EEG", "sfreq": 160.0, "segment_s": 2.0, "output": folder / "shards"}
    prepare(parse_corpus(shards | {"folders": [folder / "corpus"]}), workers=1)
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(8)]
    fmri = rng.normal(0, 0.3, (8, 10)).astype(np.float32)
    eeg = (np.abs(fmri[:, None]) / 5 + 0.02 * rng.random((8, 2, 10))).astype(np.float32)
    np.savez(folder / "pairs.npz", subject=names, eeg=eeg, fmri=fmri)
    np.savez(folder / "heard.npz", subject=["A1", "A3"], fmri=rng.normal(0, 0.3, (2, 10)).astype(np.float32))
    series = rng.normal(size=(4 * 50, 4)).astype(np.float32)
    about = {"n_volumes": [50] * 4, "subject_id": [f"f{i}" for i in range(4)], "tr_s": [2.0] * 4}
    np.savez(folder / "series.npz", data=series, **about)
    return folder


@pytest.fixture
def recipe(corpus: Path, tmp_path: Path) -> Recipe:
    """Return recipes of 2 epochs of 3 steps; ``changes`` are of ``data``, ``system``, ``optim`` by name."""

    def make(name: str = "run", system: Any = None, **changes: Any) -> PretrainRecipe:
        tables = [
            {"kind": "connectomes", "path": corpus / "pairs.npz", "nodes": "five"},
            {"kind": "connectomes", "path": corpus / "heard.npz", "nodes": "five"},
            {"kind": "roi", "path": corpus / "series.npz", "nodes": "four", "tr_s": 2.0},
        ]
        data = {"shards": [str(corpus / "shards")], "tables": tables, "table_batch": 4, "table_crop": 40}
        data |= {"validate": ["A3", "p6", "p7", "f3"], "crop_s": 1.0, "validate_segments": 8}
        optim = {"steps": 6, "batch_size": 4, "lr": 1e-2}
        optim |= {key: changes.pop(key) for key in ("accumulate", "batch_size") if key in changes}
        raw = {
            "card": {"name": "toy", "version": "0.1", "title": "A toy"},
            "system": SYSTEM | (system or {}),
            "data": {key: value for key, value in (data | changes).items() if value is not None},
            "optim": optim,
            "steps_per_epoch": 3,
            "seed": 3,
            "output": tmp_path / name,
        }
        return parse(raw)

    return make


def made(**changes: Any) -> MCSP:
    torch.manual_seed(0)
    return Config.model_validate(SYSTEM | changes).build(160.0).train()


def edges(n: int, bands: int, seed: int) -> Tensor:
    half = torch.randn(n, bands, 5, 5, generator=torch.Generator().manual_seed(seed)).triu(1) / 5
    return half + half.mT


def group(modality: str, subjects: list[int], seed: int = 0) -> Group:
    keys = torch.tensor(subjects) + 1000 * (modality == "fmri")
    values = edges(len(subjects), 2 if modality == "eeg" else 1, seed + (modality == "eeg"))
    return Group(modality, "five", None, values, torch.tensor(subjects), keys)


def batch(*groups: Group, n: int = 0) -> Segments:
    x = 10 * torch.randn(n, 3, 160, generator=torch.Generator().manual_seed(5))
    who = torch.arange(n) // 2 + 5000
    places = torch.nn.functional.normalize(torch.arange(9.0).reshape(3, 3) - 4, dim=-1).expand(n, 3, 3)
    return Segments(x, places, torch.arange(n) + 7000, who, groups)


def curve(folder: Path) -> list[list[str]]:
    lines = []
    for path in sorted(folder.glob("logs/start_*/metrics.csv")):
        header, *rows = (line.split(",") for line in path.read_text().splitlines())
        kept = [i for i, name in enumerate(header) if not name.endswith("_per_s")]
        lines += [[row[i] for i in kept] for row in rows]
    return lines


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(folder / "weights.safetensors"))


def unfelt(system: Any, settings: PretrainRecipe) -> set[str]:
    """Return weights that no loss responds to: Adam makes steps of their gradients, which are rounding."""
    shown = Micros(PretrainData(settings).sides[0], 1, 0, 1, 6)[0]
    system.loss(shown, AT)[0].backward()
    return {name for name, weight in system.towers.named_parameters() if weight.grad.abs().max() < 1e-6}


def test_each_group_has_the_terms_it_can_have() -> None:
    """Edges in two bands have two domains, in one band one; only pairs are contrasted across modalities."""
    system = made()
    shown = {
        "fmri": {"within_fmri"},
        "eeg": {"within_eeg", "cross_domain_eeg"},
        "both": {"within_fmri", "within_eeg", "cross_domain_eeg", "cross_modal_spatial", "distill_spatial"},
        "unpaired": {"within_fmri", "within_eeg", "cross_domain_eeg"},
    }
    eeg, fmri = group("eeg", [1, 2, 3]), group("fmri", [1, 2, 3])
    batches = {"fmri": batch(fmri), "eeg": batch(eeg), "both": batch(eeg, fmri)}
    batches["unpaired"] = batch(eeg, group("fmri", [7, 8, 9]))
    for name, wanted in shown.items():
        loss, figures = system.eval().loss(batches[name], AT)
        assert {key.removeprefix("loss_") for key in figures} == wanted, name
        assert loss.isfinite()
    _, figures = system.loss(batch(n=6), AT)
    assert set(figures) == {"loss_within_eeg", "loss_cross_domain_eeg"}


def test_a_step_of_nothing_is_no_nan() -> None:
    """A step without rows has a loss of 0, which can be differentiated."""
    system = made()
    loss, figures = system.loss(batch(), AT)
    loss.backward()
    assert (float(loss.detach()), figures) == (0, {})
    assert not any(w.grad is not None and w.grad.isnan().any() for w in system.parameters())


def test_unpaired_people_get_no_cross_modal_gradient() -> None:
    """With the cross-modal terms alone, the loss of people whose other modality is missing is 0."""
    system = made(within=0, cross_domain=0)
    loss, figures = system.loss(batch(group("eeg", [1, 2, 3]), group("fmri", [7, 8, 9])), AT)
    loss.backward()
    assert (float(loss.detach()), figures) == (0, {})
    assert not any(weight.grad.any() for weight in system.towers.parameters())


def test_distillation_teaches_eeg_alone() -> None:
    """With distillation as the only term, the EEG branch learns and the fMRI branch does not."""
    system = made(within=0, cross_domain=0, cross_modal=0)
    loss, _ = system.loss(batch(group("eeg", [1, 2, 3, 4]), group("fmri", [1, 2, 3, 4])), AT)
    loss.backward()
    moved = {m: any(w.grad.any() for w in system.towers[m].parameters()) for m in ("eeg", "fmri")}
    assert moved == {"eeg": True, "fmri": False}
    assert all(weight.grad is None for weight in system.slow.parameters())


def test_who_is_paired_with_whom_changes_the_cross_modal_terms_only() -> None:
    """Other numbers on the fMRI rows leave every term within a modality as it was."""
    eeg, fmri = group("eeg", [1, 2, 3, 4]), group("fmri", [1, 2, 3, 4])
    shuffled = fmri._replace(subjects=fmri.subjects[[1, 2, 3, 0]])
    true, control = (made().loss(batch(eeg, rows), AT)[1] for rows in (fmri, shuffled))
    same = {name for name in true if torch.equal(true[name], control[name])}
    assert set(true) - same == {"loss_cross_modal_spatial", "loss_distill_spatial"}


def test_rows_do_not_depend_on_their_order() -> None:
    """The same rows in another order, in one group or in two, give the same loss and the same queues."""
    one, other = made(), made()
    eeg, fmri = group("eeg", [1, 2, 3, 4]), group("fmri", [1, 2, 3, 4])
    turned = [
        rows._replace(edges=rows.edges.flip(0), subjects=rows.subjects.flip(0), keys=rows.keys.flip(0))
        for rows in (eeg, fmri)
        if rows.edges is not None
    ]
    a, _ = one.loss(batch(eeg, fmri, n=4), AT)
    b, _ = other.loss(batch(turned[1], turned[0], n=4), AT)
    torch.testing.assert_close(a, b)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], atol=1e-6, rtol=0)


def test_training_moves_the_slow_copy_and_fills_the_queues() -> None:
    """A training step moves every slow weight by its share towards the fast one and keeps the step's keys."""
    system = made()
    with torch.no_grad():
        for weight in system.towers.parameters():
            weight.add_(1.0)
    before = {name: value.clone() for name, value in system.slow.named_parameters()}
    system.loss(batch(group("eeg", [1, 2, 3]), n=4), AT)
    for name, value in system.slow.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.1, atol=1e-6, rtol=0)
    found = {name: set(queue.subjects.tolist()) - {-1} for name, queue in system.queues.items()}
    assert found["eeg_spatial"] == found["eeg_spectral"] == {1, 2, 3, 5000, 5001}
    assert found["eeg_temporal"] == {5000, 5001}
    assert found["fmri_spatial"] == set()


def test_validation_changes_no_state() -> None:
    """Neither validation nor a loss in eval mode moves a weight, a queue or the slow copy; both repeat."""
    system = made().eval()
    shown = batch(group("eeg", [1, 2, 3]), group("fmri", [1, 2, 3]), n=4)
    before = {name: value.clone() for name, value in system.state_dict().items()}
    scores = []
    for _ in range(2):
        system.begin_validation()
        with torch.no_grad():
            system.validate(shown)
            system.loss(shown, AT)
        scores.append(system.end_validation())
    assert scores[0] == scores[1]
    assert {"loss", "retrieval_cross_modal_spatial", "chance_cross_modal_spatial"} <= set(scores[0])
    assert scores[0]["chance_cross_modal_spatial"] == pytest.approx(1 / 3)
    assert all(torch.equal(value, before[name]) for name, value in system.state_dict().items())


def test_pairs_are_found_after_some_steps() -> None:
    """Trained on eight pairs, the system finds the fMRI of each one's EEG, which at first it does not."""
    system = made(augment={"edge_drop": 0, "node_drop": 0})
    people = batch(group("eeg", list(range(8))), group("fmri", list(range(8))))
    adam = torch.optim.Adam(system.towers.parameters(), 1e-2)
    for step in range(80):
        keys = [rows._replace(keys=rows.keys + 10_000 * step) for rows in people.groups]
        loss, _ = system.train().loss(people._replace(groups=tuple(keys)), AT)
        adam.zero_grad()
        loss.backward()
        adam.step()
    system.eval().begin_validation()
    with torch.no_grad():
        system.validate(people)
    scores = system.end_validation()
    assert scores["chance_cross_modal_spatial"] == pytest.approx(1 / 8)
    assert scores["retrieval_cross_modal_spatial"] > 0.5


def test_an_embedding_is_the_branch_over_its_domains() -> None:
    """`embed` joins what the branch makes of each view that is there; the part puts out the same domains."""
    system = made().eval()
    shown = system.eeg.views_of_edges(edges(3, 2, 0))
    assert system.embed("eeg", shown, system.eeg.places(nodes="five")).shape == (3, 16)
    part = system.parts()["backbone"]
    assert part.n_latent == 24
    assert part.branch is system.eeg


def test_a_resumed_pretraining_is_the_uninterrupted_one(recipe: Recipe) -> None:
    """Stopped after an epoch and resumed, curve, weights, slow copy and queues are bit for bit the same."""
    straight, broken = recipe("straight"), recipe("broken")
    pretrain(straight, progress=False)
    pretrain(broken, progress=False, stop_after=1)
    run = pretrain(broken, progress=False, resume=True)
    assert curve(straight.output) == curve(broken.output)
    ours, its = weights(straight.output), weights(broken.output)
    assert any(name.startswith("queues.") for name in ours)
    assert all(torch.equal(value, its[name]) for name, value in ours.items())
    assert run.scores["retrieval_cross_modal_spatial"] >= 0


def test_two_processes_are_one(recipe: Recipe, tmp_path: Path) -> None:
    """On two gloo processes weights, slow copy and queues are those of one process, but for rounding."""
    alone, shared = recipe("alone"), recipe("shared")
    pretrain(alone, progress=False)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(shared.model_dump(mode="json", by_alias=True)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "-m", "offline.cli", "pretrain", str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert load_run(shared.output).machine["processes"] == "2"
    for one, other in zip(curve(alone.output), curve(shared.output), strict=True):
        assert [float(value) for value in one] == pytest.approx([float(value) for value in other], rel=1e-5)
    ours, its, idle = weights(alone.output), weights(shared.output), unfelt(load_system(alone.output), alone)
    for name, value in ours.items():
        if name.split(".", 1)[1] not in idle:
            torch.testing.assert_close(value, its[name], atol=2e-5, rtol=0, msg=name)
    assert len(idle) < len(ours) / 10
    assert torch.equal(ours["queues.eeg_spatial.subjects"], its["queues.eeg_spatial.subjects"])


def test_micro_batches_see_everybody(recipe: Recipe) -> None:
    """Cut into micro-batches or over processes, the people of a step are those of the whole."""
    side = PretrainData(recipe()).sides[0]

    def everybody(accumulate: int, world: int) -> list[tuple[int, int]]:
        parts = [
            Micros(side, accumulate, rank, world, 6)[i] for rank in range(world) for i in range(accumulate)
        ]
        groups = [group for part in parts for group in part.groups]
        return sorted(pair for g in groups for pair in zip(g.subjects.tolist(), g.keys.tolist(), strict=True))

    assert len(everybody(1, 1)) > 4
    assert everybody(1, 1) == everybody(2, 1) == everybody(1, 2) == everybody(2, 2)


def test_a_run_says_who_had_a_part(recipe: Recipe) -> None:
    """Subjects and fingerprints of tables are told apart as those of shards are; hours are of segments."""
    settings = recipe(exclude=["p0", "f0"])
    run = pretrain(settings, progress=False)
    assert run.subjects["train"] == ("A1", "A2", "f1", "f2", "p1", "p2", "p3", "p4", "p5")
    assert run.subjects["validate"] == ("A3", "f3", "p6", "p7")
    sides = PretrainData(settings).sides
    assert all(side.people and set(side.people.fingerprints) <= set(side.fingerprints) for side in sides)
    assert run.fingerprints["train"] == sides[0].fingerprints
    assert run.hours == pytest.approx(6 * 4 * 1.0 / 3600, abs=1e-4)
    assert sides[0].people
    assert sides[0].people.paired == ("A1", "p1", "p2", "p3", "p4", "p5")
    assert isinstance(load_system(settings.output), MCSP)


def test_tables_alone_can_be_trained_on(recipe: Recipe) -> None:
    """Without shards a recipe says the rate, and everything else goes as with them."""
    settings = recipe(shards=(), sfreq=160.0, validate=["p6", "p7"])
    run = pretrain(settings, progress=False)
    assert (run.sfreq, run.stype, run.hours, run.montages) == (160.0, "EEG", 0.0, ())
    assert run.subjects["validate"] == ("p6", "p7")
    assert "loss_cross_modal_spatial" in run.scores
    assert "loss_cross_domain_fmri" not in run.scores


def test_people_cannot_be_validated_on_where_there_are_only_segments_of_others(recipe: Recipe) -> None:
    """Held-out people without segments are validated on beside none."""
    run = pretrain(recipe(validate=["p6", "p7"]), progress=False)
    assert run.subjects["validate"] == ("p6", "p7")
    assert "retrieval_cross_modal_spatial" in run.scores


class Deaf(SystemConfig):
    """A system that learns from shards alone."""

    kind: str = "deaf"

    def build(self, sfreq: float) -> Any:
        return made()


def test_what_cannot_be_learned_from_is_refused(recipe: Recipe) -> None:
    """Tables for a system that takes none, no pairs, both sides at once, other rates: what to do is said."""
    with pytest.raises(ConfigError, match=r"deaf learns from shards alone: leave out data\.tables"):
        PretrainData(recipe().model_copy(update={"system": Deaf()}))
    with pytest.raises(ConfigError, match=r"p7 are in data\.validate and in data\.exclude"):
        PretrainData(recipe(exclude=["p7"]))
    with pytest.raises(ConfigError, match="set both to 0"):
        PretrainData(recipe(tables=None, validate=["A3"]))
    alone = recipe(tables=None, validate=["A3"], system={"cross_modal": 0, "distill": 0})
    assert PretrainData(alone).sides[0].people is None
    with pytest.raises(ConfigError, match="set both to 0"):
        PretrainData(recipe(validate=["A3", "f3"], exclude=["A1", *(f"p{i}" for i in range(8))]))
    with pytest.raises(ConfigError, match=r"volume every 2 s, system\.fmri is made for one every 4 s"):
        PretrainData(recipe(system={"fmri": FMRI | {"sfreq": 0.25, "bands": [[0.02, 0.1]]}}))
    with pytest.raises(ConfigError, match=r"fmri on the 4 regions of four, .*: set four to 4 there"):
        PretrainData(recipe(system={"fmri": FMRI | {"nodes": {"five": 5, "four": 6}}}))
    with pytest.raises(ConfigError, match=r"eeg on the 5 regions of five, system\.eeg\.nodes are none"):
        PretrainData(recipe(system={"eeg": SYSTEM["eeg"] | {"nodes": {}}}))
    with pytest.raises(ConfigError, match=r"data\.table_batch 4 cannot be cut"):
        PretrainData(recipe(batch_size=8), world=8)
    with pytest.raises(ConfigError, match="nothing to learn from"):
        recipe(shards=None, tables=None)
    with pytest.raises(ConfigError, match="sfreq is given where there are no shards"):
        recipe(shards=())
    with pytest.raises(ConfigError, match="shuffle_pairs needs tables"):
        recipe(tables=None, shuffle_pairs=True)
    with pytest.raises(ConfigError, match=r"made for 200 Hz, the data have 160 Hz"):
        PretrainData(recipe(system={"eeg": {}}))
