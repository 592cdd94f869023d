"""Batches drawn from shards."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("webdataset")

from shard_corpus import make  # noqa: E402

from offline.data.remote import Store  # noqa: E402
from offline.data.shard_order import Order, Schedule, row_key  # noqa: E402
from offline.data.shards import ShardSet  # noqa: E402
from offline.systems import Segments  # noqa: E402
from streamer.errors import ConfigError, RecordingError  # noqa: E402

FEW = ("C4", "Cz", "C3")


@pytest.fixture(scope="module")
def shards(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects of 24 segments each, 9 channels, two tars per subject or more."""
    folder = tmp_path_factory.mktemp("shards")
    make(corpus_dir, folder, shard_mb=0.15)
    return folder


@pytest.fixture(scope="module")
def mixed(run_writer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects with 9 channels and one with 3."""
    source = tmp_path_factory.mktemp("mixed")
    for i, channels in enumerate([{}, {}, {"channels": FEW}]):
        run_writer(source / f"M{i}" / "r.npz", seed=i, **channels)
    make(source, source / "shards")
    return source / "shards"


def opened(folder: Path, **options: Any) -> ShardSet:
    return ShardSet([folder], **{"batch_size": 8, "seed": 5, "open_shards": 2} | options)


def assert_equal(a: Segments, b: Segments) -> None:
    assert a.subjects is not None
    assert b.subjects is not None
    assert torch.equal(a.subjects, b.subjects)
    for one, other in zip(a[:3], b[:3], strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


def marks(batch: Segments) -> list[tuple[float, ...]]:
    """Return what tells the rows' segments apart."""
    return [tuple(row[:, 100].tolist()) for row in batch.x]


def test_a_batch_depends_on_seed_and_step_alone(shards: Path) -> None:
    """A set opened to resume at step 7 draws what one from step 0 on draws there; another seed does not."""
    run, resumed = opened(shards, crop=300), opened(shards, crop=300)
    batches = [run.batch(step) for step in range(8)]
    assert_equal(resumed.batch(7), batches[7])
    assert_equal(resumed.batch(0), batches[0])
    assert not torch.equal(opened(shards, crop=300, seed=6).batch(7).x, batches[7].x)
    copied = pickle.dumps(run)
    assert len(copied) < 20_000  # what was read stays behind
    assert_equal(pickle.loads(copied).batch(3), batches[3])


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_global_batch(mixed: Path, world: int) -> None:
    """The processes' rows, one after the other, are the batch that one process would have drawn."""
    data = opened(mixed, crop=300)
    for step in range(6):
        parts = [data.batch(step, rank, world) for rank in range(world)]
        joined = Segments(
            *(torch.cat(list(fields)) for fields in zip(*(part[:4] for part in parts), strict=True))
        )
        assert_equal(joined, data.batch(step))
    with pytest.raises(ConfigError, match="multiple of 3"):
        data.batch(0, 0, 3)


def test_every_segment_comes_once_per_pass(shards: Path) -> None:
    """A pass draws each segment once, the next one again, in another order."""
    data = opened(shards)
    assert len(data) == 72
    passes = [[mark for step in range(9) for mark in marks(data.batch(9 * p + step))] for p in range(2)]
    assert len(set(passes[0])) == 72
    assert set(passes[0]) == set(passes[1])
    assert passes[0] != passes[1]


def test_an_order_touches_few_shards_at_a_time() -> None:
    """Between two windows of a pass no shard is open twice, so a disk reads each of them through once."""
    order = Order([5, 1, 7, 3, 4, 6, 2], (0,), open_shards=3)
    drawn = [order(position) for position in range(order.n)]
    assert len(set(drawn)) == order.n == 28
    spans = [[i for i, (shard, _) in enumerate(drawn) if shard == s] for s in range(7)]
    at_once = [sum(span[0] <= i <= span[-1] for span in spans) for i in range(order.n)]
    assert max(at_once) <= 3
    alone = Order([2, 2, 2, 2, 2, 2], (0,), open_shards=1)
    first, second = ([alone(i)[0] for i in range(start, start + 12, 2)] for start in (0, 12))
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4, 5]
    assert first != second


def test_keys_are_never_the_same_twice(shards: Path) -> None:
    """No row of any step, of this training or one with another seed, has another row's key."""
    keys = [int(k) for seed in (0, 1) for s in range(5) for k in opened(shards, seed=seed).batch(s).keys]
    assert len(set(keys)) == len(keys)
    assert min(keys) >= 0
    assert row_key(2**19 - 1, 2**44 - 1) < 2**63


def test_crops_are_parts_of_segments(shards: Path) -> None:
    """A row is a stretch of one segment, beginning anywhere in it, equal on all channels."""
    whole = np.concatenate([batch.x.numpy() for batch in opened(shards).validation_batches()])
    starts = set()
    for row in opened(shards, crop=100).batch(3).x.numpy():
        (found,) = [
            (i, t)
            for i, t in np.argwhere(whole[:, 0, :701] == row[0, 0])
            if np.array_equal(whole[i, :, t : t + 100], row)
        ]
        starts.add(found[1])
    assert len(starts) > 4


def test_drawn_channels_keep_their_places(mixed: Path) -> None:
    """With channels drawn at random montages mix, each channel beside its own coordinates."""
    data = opened(mixed, channels=2)
    assert data.montages == (("FC3", "FCz", "FC4", "C3", "Cz", "C4", "CP3", "CPz", "CP4"), FEW)
    full = opened(mixed)
    known = {
        (*channel[100:103].tolist(),): place
        for batch in full.validation_batches()
        for row, places in zip(batch.x, batch.positions, strict=True)
        for channel, place in zip(row, places, strict=True)
    }
    batch = data.batch(0)
    assert batch.x.shape == (8, 2, 800)
    for row, places in zip(batch.x, batch.positions, strict=True):
        for channel, place in zip(row, places, strict=True):
            assert torch.equal(known[(*channel[100:103].tolist(),)], place)
    assert len(opened(mixed, channels=4)) == 2 * len(opened(mixed, subjects=["M0"]))
    with pytest.raises(ConfigError, match="no shard of the 3 chosen subjects has 10 channels"):
        opened(mixed, channels=10)


def test_batches_are_of_one_montage_each_in_proportion() -> None:
    """Where montages cannot mix, each has its share of the batches, and its rows follow each other."""
    schedule = Schedule([400, 100], batch_size=10, seed=0)
    drawn = [schedule(step) for step in range(150)]
    assert sum(group == 0 for group, _ in drawn) == 120
    for group in (0, 1):
        assert [at for g, at in drawn if g == group] == [10 * i for i in range(len(drawn)) if i < 120][
            : sum(g == group for g, _ in drawn)
        ]


def test_every_montage_is_drawn(mixed: Path) -> None:
    """A set of several montages gives batches of each, never of two at once."""
    assert {opened(mixed).batch(step).x.shape[1] for step in range(8)} == {3, 9}


def test_validation_knows_no_chance(shards: Path) -> None:
    """Validation does not depend on the seed; a limit takes segments from all over the set."""
    full = list(opened(shards, crop=100).validation_batches())
    assert sum(len(batch.x) for batch in full) == 72
    for a, b in zip(full, opened(shards, crop=100, seed=9).validation_batches(), strict=True):
        assert_equal(a, b)
    everything = [mark for batch in opened(shards).validation_batches() for mark in marks(batch)]
    few = [mark for batch in opened(shards).validation_batches(2) for mark in marks(batch)]
    assert [everything.index(mark) for mark in few] == [i * 72 // 16 for i in range(16)]
    shares = [list(opened(shards, crop=100).validation_batches(4, rank, 2)) for rank in range(2)]
    assert [len(share) for share in shares] == [2, 2]


@pytest.mark.parametrize("harm", ["cut", "gone", "zeros"])
def test_a_damaged_shard_is_refused_in_words(corpus_dir: Path, tmp_path: Path, harm: str) -> None:
    """A shard cut short, gone or overwritten is named, with what to do, when it is read."""
    make(corpus_dir, tmp_path)
    path = tmp_path / "A2-0000.tar"
    size = path.stat().st_size
    if harm == "gone":
        path.unlink()
    else:
        os.truncate(path, size // 2)
        os.truncate(path, size if harm == "zeros" else size // 2)
    data = opened(tmp_path)
    with pytest.raises(RecordingError, match=r"A2-0000\.tar.*bcitrain data prepare"):
        list(data.validation_batches())
    list(opened(tmp_path, exclude=["A2"]).validation_batches())


def test_corpora_that_differ_are_refused(corpus_dir: Path, shards: Path, tmp_path: Path) -> None:
    """Corpora at unlike rates or behind unlike filters are not one; what is unlike is said."""
    make(corpus_dir, tmp_path / "slow", sfreq=100.0)
    make(corpus_dir, tmp_path / "raw", dsp=[])
    for folder, key in (("slow", "sfreq is 200.0"), ("raw", "dsp is")):
        with pytest.raises(ConfigError, match=key):
            ShardSet([shards, tmp_path / folder], batch_size=4)
    assert len(ShardSet([shards, shards], batch_size=4)) == 144
    with pytest.raises(ConfigError, match="801 samples do not fit in segments of 800"):
        opened(shards, crop=801)
    with pytest.raises(RecordingError, match="no subject 'A9'"):
        opened(shards, subjects=["A9"])
    with pytest.raises(RecordingError, match=r"index\.json cannot be read"):
        opened(tmp_path)


def test_only_the_chosen_subjects_are_read(shards: Path) -> None:
    """Subjects and fingerprints are those chosen, and no segment of another is drawn."""
    some, rest = opened(shards, subjects=["A1-A2"]), opened(shards, exclude=["A1-A2"])
    assert (some.subjects, rest.subjects) == (("A1", "A2"), ("A3",))
    assert len(some.fingerprints) == 4
    assert not set(some.fingerprints) & set(rest.fingerprints)
    drawn = [{mark for batch in data.validation_batches() for mark in marks(batch)} for data in (some, rest)]
    assert [len(marked) for marked in drawn] == [48, 24]
    assert not drawn[0] & drawn[1]
    assert (some.sfreq, some.stype, some.unit, some.dsp[0].kind) == (200.0, "EEG", "uV", "bandpass")
    assert some.hours == pytest.approx(48 * 4 / 3600)


def test_remote_shards_are_read_through_a_bounded_cache(shards: Path, tmp_path: Path) -> None:
    """A set behind an address gives the same batches, and its cache drops what was not used for longest."""
    address = f"pipe:cat {shards}/{{}}"
    data = ShardSet([address], batch_size=8, seed=5, open_shards=2, cache=tmp_path)
    assert_equal(data.batch(2), opened(shards).batch(2))
    names = sorted(path.name for path in shards.glob("*.tar"))
    sizes = [(shards / name).stat().st_size for name in names]
    store = Store(address, cache=tmp_path / "small", cache_gb=(sizes[1] + sizes[2]) / 1e9)
    for name, size in zip(names[:3], sizes, strict=False):
        assert store.file(name, size).read_bytes() == (shards / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "small").rglob("*.tar")) == names[1:3]
    with pytest.raises(RecordingError, match="cannot be read"):
        Store(f"pipe:cat {tmp_path}/nowhere/{{}} 2>/dev/null", cache=tmp_path).file("a.tar", 10)


def test_webdataset_itself_reads_the_shards(shards: Path) -> None:
    """The tars are WebDataset's: its own reader finds the same segments."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    path = sorted(shards.glob("*.tar"))[0]
    with path.open("rb") as stream:
        samples = list(group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}])))
    assert {json.loads(sample["json"])["recording"] for sample in samples} <= {"A1R1", "A1R2"}
    first = next(opened(shards, subjects=["A1"]).validation_batches()).x[0].numpy()
    np.testing.assert_array_equal(np.load(io.BytesIO(samples[0]["x.npy"])).astype(np.float32), first)
