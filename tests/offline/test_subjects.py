"""Batches of people: functions of seed and step, pairs together, shuffled pairs as a control."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from offline.data.subjects import SubjectSet, number, read_tables  # noqa: E402
from offline.data.tables import Connectomes, Person  # noqa: E402
from offline.systems import Group, Segments  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402

PAIRED = [f"p{i}" for i in range(6)]
ALONE = [f"f{i}" for i in range(4)]


def person(subject: str, modality: Any, seed: int, signal: bool = False, **others: Any) -> Person:
    rng = np.random.default_rng(seed)
    if signal:
        values: dict[str, Any] = {"signal": rng.normal(size=(4, 50)).astype(np.float32), "sfreq": 0.5}
    else:
        half = np.triu(rng.normal(size=(1, 5, 5)), 1).astype(np.float32)
        values = {"edges": half + half.transpose(0, 2, 1)}
    named = {"fingerprint": f"{modality}{subject}", "nodes": "four" if signal else "five"}
    return Person(**({"subject": subject, "modality": modality} | named | values | others))


PEOPLE = [person(name, m, i + 10 * k) for i, name in enumerate(PAIRED) for k, m in enumerate(("eeg", "fmri"))]
PEOPLE += [person(name, "fmri", 50 + i, signal=True) for i, name in enumerate(ALONE)]


def opened(**options: Any) -> SubjectSet:
    return SubjectSet(PEOPLE, **{"batch_size": 4, "seed": 3, "crop": 30} | options)


def flat(groups: tuple[Group, ...]) -> list[tuple[str, int, int, bytes]]:
    """Return what each row is: modality, whose, its key, its numbers."""
    rows = []
    for group in groups:
        values = group.signal if group.signal is not None else group.edges
        assert values is not None
        for i, (who, key) in enumerate(zip(group.subjects.tolist(), group.keys.tolist(), strict=True)):
            rows.append((group.modality, who, key, values[i].numpy().tobytes()))
    return rows


def drawn(data: SubjectSet, steps: int) -> list[tuple[str, int, int, bytes]]:
    return [row for step in range(steps) for row in flat(data.batch(step))]


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    """Two sets of one seed give the same batches in any order of asking; another seed gives others."""
    first, again = opened(), opened()
    later = {step: flat(again.batch(step)) for step in (7, 0, 3)}
    assert all(flat(first.batch(step)) == rows for step, rows in later.items())
    assert drawn(first, 5) != drawn(opened(seed=4), 5)


def test_a_pass_has_everybody_once() -> None:
    """In five batches of four, ten people come twice each, with all that the tables hold of them."""
    rows = Counter((modality, who) for modality, who, *_ in drawn(opened(), 5))
    wanted = {(m, number(name)): 2 for name in PAIRED for m in ("eeg", "fmri")}
    assert rows == wanted | {("fmri", number(name)): 2 for name in ALONE}


def test_pairs_meet_in_a_step() -> None:
    """Whoever's EEG is in a batch, their fMRI is as well, and keys tell every row from every other."""
    data = opened()
    for step in range(10):
        groups = data.batch(step)
        who = {group.modality: set(group.subjects.tolist()) for group in groups if group.nodes == "five"}
        assert who.get("eeg") == who.get("fmri")
    keys = [row[2] for row in drawn(data, 20)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_people_of_a_batch(world: int) -> None:
    """The processes' rows together are the rows that one process would have drawn."""
    data = opened()
    for step in range(6):
        parts = [row for rank in range(world) for row in flat(data.batch(step, rank, world))]
        assert sorted(parts) == sorted(flat(data.batch(step)))
    with pytest.raises(ConfigError, match=r"table_batch a multiple of 3"):
        data.batch(0, 0, 3)


def test_crops_come_from_keys() -> None:
    """A time series is cropped at places that vary, and validation sees the same crops every time."""
    data = opened()
    crops = {(who, values) for m, who, _, values in drawn(data, 20) if who == number("f0")}
    assert len(crops) > 2
    held_out = [[flat(groups) for groups in data.validation_batches()] for _ in range(2)]
    assert held_out[0] == held_out[1]
    assert {row[1] for rows in held_out[0] for row in rows} == {number(name) for name in PAIRED + ALONE}


def test_shuffled_pairs_change_whose_fmri_it_is_and_nothing_else() -> None:
    """EEG and unpaired rows stay bit for bit; every paired person has somebody else's fMRI, each one once."""
    true, shuffled = drawn(opened(), 5), drawn(opened(shuffle_pairs=True), 5)
    paired = {number(name) for name in PAIRED}
    moved = [("fmri", who) for who in paired]
    keep = [row for row in true if row[:2] not in moved]
    assert keep == [row for row in shuffled if row[:2] not in moved]
    of = [{row[1]: row[3] for row in rows if row[:2] in moved} for rows in (true, shuffled)]
    assert sorted(of[0].values()) == sorted(of[1].values())
    assert all(of[0][who] != of[1][who] for who in paired)
    assert [row[:3] for row in true] == [row[:3] for row in shuffled]


def test_the_shuffle_is_fixed_by_the_seed() -> None:
    """The same seed deranges alike; one pair alone cannot be."""
    first = drawn(opened(shuffle_pairs=True), 5)
    assert first == drawn(opened(shuffle_pairs=True), 5)
    with pytest.raises(ConfigError, match="at least 2 people"):
        opened(shuffle_pairs=True, subjects=["p0", "f0"])


def test_people_left_out_are_out() -> None:
    """Chosen or excluded by name, also of the pairs and of the fingerprints."""
    data = opened(subjects=["p0", "p1", "f0"], exclude=["p1"])
    assert (data.subjects, data.paired) == (("f0", "p0"), ("p0",))
    assert data.fingerprints == ("eegp0", "fmrif0", "fmrip0")
    with pytest.raises(ConfigError, match="Nobody is left"):
        opened(exclude=PAIRED + ALONE)


def test_the_fmri_of_people_in_shards_comes_beside_their_segments() -> None:
    """A row for each segment of somebody with fMRI, whoever else is in the batch and however it is cut."""
    data = opened(heard=["f0", "f1", "nobody"])
    assert set(data.paired) == {*PAIRED, "f0", "f1"}
    who = torch.tensor([number(name) for name in ("f1", "nobody", "f0", "f1")])
    keys = torch.arange(4)
    x = Segments(torch.zeros(4, 1, 8), torch.zeros(4, 1, 3), keys, who)
    rows = flat(data.companions(x))
    assert [row[1] for row in rows] == [number("f1"), number("f0"), number("f1")]
    whole = flat(data.batch(0, beside=x))
    assert sorted(whole) == sorted(flat(data.batch(0)) + rows)
    halves = []
    for rank, part in enumerate((slice(0, 2), slice(2, 4))):
        half = Segments(x.x[part], x.positions[part], keys[part], who[part])
        halves += flat(data.batch(0, rank, 2, beside=half))
    assert sorted(halves) == sorted(whole)


def test_what_does_not_go_together_is_refused(tmp_path: Any) -> None:
    """Rates that differ, crops that do not fit, one subject's modality in two tables: what to do is said."""
    slow = person("g0", "fmri", 1, signal=True, sfreq=0.4)
    with pytest.raises(ConfigError, match=r"2 and 2\.5 s per volume"):
        SubjectSet([*PEOPLE, slow], batch_size=4)
    with pytest.raises(ConfigError, match=r"table_crop 60 does not fit in the 50 volumes of f0"):
        opened(crop=60)
    assert opened(crop=None).batch(0)
    short = replace(person("f0", "fmri", 2, signal=True), nodes="other", signal=np.ones((3, 20), np.float32))
    for order in ([short, *PEOPLE], [*PEOPLE, short]):
        signals = [rows.signal for rows in SubjectSet(order, batch_size=10).batch(0)]
        assert [x.shape[-1] for x in signals if x is not None] == [20, 20]
    path = tmp_path / "few.npz"
    np.savez(path, subject=["a", "b", "c"], fmri=np.random.default_rng(0).normal(size=(3, 10)))
    table = Connectomes(kind="connectomes", path=path, nodes="five")
    with pytest.raises(ConfigError, match="fmri of a on five is in two"):
        read_tables([table, table])
    both = read_tables([table, table.model_copy(update={"prefix": "other_"})])
    assert [one.subject for one in both] == ["a", "b", "c", "other_a", "other_b", "other_c"]


def test_a_subject_has_the_same_number_everywhere() -> None:
    """It depends on the name alone, is no negative int64, and differs between names."""
    numbers = {number(f"S{i:03d}") for i in range(500)}
    assert len(numbers) == 500
    assert min(numbers) >= 0
    assert max(numbers) < 2**63
    assert number("S001") == 7129325231042203617
