"""Recordings become shards."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import write_brainvision, write_edf, write_epochs, write_npz, write_xdf
from numpy.typing import NDArray
from typer.testing import CliRunner

pytest.importorskip("webdataset")

from shard_corpus import make, settings

from offline.cli import app
from offline.data import shard_writer
from offline.data.fingerprint import fingerprint
from offline.data.prepare import load, parse, prepare
from streamer.chain import Chain
from streamer.clean import Cleaner
from streamer.dsp.bandpass import Config as Bandpass
from streamer.dsp.resample import Config as Resample
from streamer.errors import ConfigError, EndOfStream, RecordingError
from streamer.sources.recording import RecordingSource
from streamer.sources.recording import load as load_recording
from streamer.types import make_chunk

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("prepare_*.yaml"))


def content(folder: Path) -> dict[str, bytes]:
    """Return what a reader of the shards may open, byte for byte."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def members(path: Path) -> list[tuple[dict[str, Any], NDArray[np.float16]]]:
    """Return a tar's segments as any tool would read them."""
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    keys = sorted({name.partition(".")[0] for name in files})
    return [(json.loads(files[f"{k}.json"]), np.load(io.BytesIO(files[f"{k}.x.npy"]))) for k in keys]


def cut_live(path: Path, chunk: int) -> NDArray[np.float32]:
    """Return a recording behind the live chain of these settings, (n_times, n_chans)."""
    recording = load_recording(path)
    chain = Chain([Resample(sfreq=200.0), Bandpass(low=1.0, high=40.0, order=2)], recording.info)
    source = RecordingSource(recording, chunk=chunk)
    cleaner, out = Cleaner(source, None, None), []
    while True:
        try:
            out += [chain(piece).data for piece in cleaner.read(0.0)]
        except EndOfStream:
            return np.concatenate([*out, *(chain(piece).data for piece in cleaner.rest())])


def test_segments_are_the_live_signal_sample_for_sample(corpus_dir: Path, tmp_path: Path) -> None:
    """What is stored is what a live session feeds its model, rounded to float16 (by at most 2^-11)."""
    make(corpus_dir, tmp_path, segment_s=2.5)
    live = cut_live(corpus_dir / "A1" / "A1R1.npz", chunk=7)
    segments = [
        (told["start"], x) for told, x in members(tmp_path / "A1-0000.tar") if told["recording"] == "A1R1"
    ]
    assert [start for start, _ in segments] == list(range(0, len(live) - 499, 500))
    for start, x in segments:
        np.testing.assert_array_equal(x, live[start : start + 500].T.astype(np.float16))


def test_any_number_of_workers_writes_the_same_bytes(corpus_dir: Path, tmp_path: Path) -> None:
    """Shards and index are equal byte for byte whether one process wrote them or several."""
    make(corpus_dir, tmp_path / "one", segment_s=2.0)
    prepare(settings(corpus_dir, tmp_path / "two", segment_s=2.0), workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert set(content(tmp_path / "one")) == {"A1-0000.tar", "A2-0000.tar", "A3-0000.tar", "index.json"}


@pytest.mark.parametrize("place", ["write", "describe"])
def test_a_kill_leaves_what_the_same_call_completes(
    corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Killed in a subject, before or after its tars are in place, a second call ends as if nothing was."""
    make(corpus_dir, tmp_path / "whole")
    real, calls = getattr(shard_writer, place), []

    def killed(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(shard_writer, place, killed)
    with pytest.raises(KeyboardInterrupt):
        make(corpus_dir, tmp_path / "cut")
    assert not (tmp_path / "cut" / "index.json").exists()
    monkeypatch.setattr(shard_writer, place, real)
    (tmp_path / "cut" / ".parts" / "begun-0000.tar").write_bytes(b"by a subject no longer chosen")
    assert make(corpus_dir, tmp_path / "cut")["done_before"] == 1
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert not (tmp_path / "cut" / ".parts").exists()


def test_excluded_subjects_are_nowhere(corpus_dir: Path, tmp_path: Path) -> None:
    """No file and no line of a subject that is left out is there, nor stays when it is left out later."""
    make(corpus_dir, tmp_path)
    report = make(corpus_dir, tmp_path, folders=[{"path": corpus_dir, "exclude": ["A2-A3"]}])
    assert (report["subjects"], report["done_before"]) == (1, 1)
    assert not [path for path in tmp_path.rglob("*") if "A2" in path.name or "A3" in path.name]
    assert "A2" not in (tmp_path / "index.json").read_text()
    with pytest.raises(RecordingError, match="no subject 'A7'"):
        make(corpus_dir, tmp_path, folders=[{"path": corpus_dir, "exclude": ["A7"]}])


def test_other_settings_are_refused_and_other_files_are_done_again(corpus_dir: Path, tmp_path: Path) -> None:
    """Shards made with other settings are not mixed; a subject with a new or a lost file is prepared anew."""
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    shutil.copytree(corpus_dir, corpus)
    make(corpus, out)
    with pytest.raises(ConfigError, match=r"other settings \(sfreq\)"):
        make(corpus, out, sfreq=100.0)
    before = content(out)
    shutil.copy(corpus / "A1" / "A1R1.npz", corpus / "A2" / "A2R3.npz")
    assert make(corpus, out)["done_before"] == 2
    assert len(members(out / "A2-0000.tar")) == 3 * len(members(out / "A1-0000.tar")) // 2
    (corpus / "A2" / "A2R3.npz").unlink()
    (out / "A3-0000.tar").write_bytes(b"cut short")
    assert make(corpus, out)["done_before"] == 1
    assert content(out) == before


def test_recordings_that_cannot_be_read_are_told_and_left_out(corpus_dir: Path, tmp_path: Path) -> None:
    """A broken file is named with its reason and the rest prepared; it is an error when nothing is left."""
    corpus, said = tmp_path / "corpus", []
    shutil.copytree(corpus_dir, corpus)
    (corpus / "A1" / "A1R1.npz").write_bytes(b"PK\x03\x04 but no more")
    report = prepare(settings(corpus, tmp_path / "out"), workers=1, say=said.append)
    assert list(report["failed"]) == ["A1/A1R1"]
    assert said[0].startswith("left out A1/A1R1: A1R1.npz is damaged")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [len(prints) for prints in index["subjects"].values()] == [1, 2, 2]
    with pytest.raises(RecordingError, match="A1/A1R2: A1R2 has no EMG channel"):
        make(corpus, tmp_path / "none", stype="EMG")


def write_faulty(path: Path) -> Path:
    """Write 40 s at 100 Hz with a loud sample, a flat stretch, a railed one, and some NaN."""
    rng = np.random.default_rng(3)
    data = rng.normal(0, 10, (2, 4000))
    data[0, 1200:1500] = 7.0
    data[1, 2200:2600] = 300.0
    data[0, 3000:3010] = np.nan
    data[1, 500] = 299.0
    names = {"ch_names": ["C3", "C4"], "ch_types": ["eeg"] * 2, "scale": np.ones(2)}
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_npz(path, data, **names)


def test_bad_segments_are_left_out_and_counted(tmp_path: Path) -> None:
    """Flat, railed and repaired stretches cost the segments they lie in, loud ones on request; it counts."""
    write_faulty(tmp_path / "in" / "s" / "a.npz")
    plain: dict[str, Any] = {"sfreq": 100.0, "dsp": [], "segment_s": 5.0}
    report = make(tmp_path / "in", tmp_path / "out", **plain)
    assert report["rejected"] == {"flat": 1, "railed": 2, "repaired": 1}
    assert [told["start"] for told, _ in members(tmp_path / "out" / "s-0000.tar")] == [0, 500, 1500, 3500]
    report = make(tmp_path / "in", tmp_path / "strict", reject_uv=200.0, **plain)
    assert report["rejected"]["amplitude"] == 1
    report = make(tmp_path / "in", tmp_path / "lax", max_bad=0.5, **plain)
    assert report["rejected"] == {"repaired": 1}


def test_held_samples_are_taken_once_and_counts_get_their_unit(tmp_path: Path) -> None:
    """Of an armband's repeated rows one in five is kept, and its steps become microvolts."""
    steps = np.random.default_rng(0).integers(-100, 100, (8, 4000))
    (tmp_path / "in").mkdir()
    held = np.repeat(steps, 5, axis=1).astype(np.int16)
    path = write_npz(tmp_path / "in" / "p1_run.npz", held, sfreq=500.0, units="adc", scale=np.ones(8))
    plain: dict[str, Any] = {"stype": "EMG", "sfreq": 100.0, "dsp": []}
    folder = {"path": tmp_path / "in", "hold": 5, "subject": "p[0-9]"}
    with pytest.raises(RecordingError, match="tells no unit"):
        make(tmp_path, tmp_path / "out", folders=[folder], **plain)
    make(tmp_path, tmp_path / "out", folders=[folder | {"uv_per_count": 10.0}], **plain)
    x = np.concatenate([x for _, x in members(tmp_path / "out" / "p1-0000.tar")], axis=1)
    np.testing.assert_array_equal(x, 10 * steps.astype(np.float16))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["subjects"] == {"p1": [fingerprint(np.load(path)["data"])]}


def made_edf(path: Path) -> None:
    blocks = [np.random.default_rng(i).integers(-50, 50, (20, 128)) for i in range(2)]
    write_edf(path, blocks, ["EEG T3-REF", "EEG C4-LE"])


def made_xdf(path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 10, (2560, 2)).astype(np.float32)
    stream = {"name": "cap", "type": "EEG", "rate": 128.0, "stamps": np.arange(2560) / 128, "values": values}
    write_xdf(path, [stream | {"labels": ["T3", "C4"], "unit": "microvolts"}])


def made_fif(path: Path) -> None:
    mne = pytest.importorskip("mne")
    volts = np.random.default_rng(0).normal(0, 1e-5, (2, 2560))
    info = mne.create_info(["T3", "C4"], 128.0, "eeg")
    mne.io.RawArray(volts, info, verbose="error").save(path, verbose="error")


def made_vhdr(path: Path) -> None:
    write_brainvision(path, np.random.default_rng(0).integers(-50, 50, (4000, 2)))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("sub-01_a.edf", made_edf),
        ("b_sub-01.xdf", made_xdf),
        ("sub-01_raw.fif", made_fif),
        ("sub-01.vhdr", made_vhdr),
    ],
)
def test_every_format_becomes_the_same_kind_of_shard(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    """A file directly in the folder belongs to the sub-XX in its name; its electrodes get 10-05 names."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / name)
    report = make(tmp_path / "in", tmp_path / "out", segment_s=2.0)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    (place,) = index["montages"].values()
    assert place["ch_names"] == (["Fz", "Cz"] if name.endswith(".vhdr") else ["T7", "C4"])
    assert np.linalg.norm(place["positions"], axis=1) == pytest.approx(1.0, abs=1e-5)
    assert list(index["subjects"]) == ["sub-01"]
    assert report["segments"] >= 5


def test_originals_of_other_recorders_are_prepared(data_dir: Path, tmp_path: Path) -> None:
    """BDF and GDF files as devices wrote them become segments; no EEG in one is said."""
    for kind in ("bdf", "gdf"):
        shutil.copytree(data_dir / "originals" / kind, tmp_path / "in" / kind)
    report = make(tmp_path / "in", tmp_path / "out", sfreq=100.0, segment_s=1.0)
    assert report["subjects"] == 2
    assert report["segments"] > 100
    assert report["failed"] == {"gdf/mne_test_1ch": "mne_test_1ch has no EEG channel, only ecg"}


def test_montages_are_apart_unless_channels_are_named(
    run_writer: Callable[..., Path], tmp_path: Path
) -> None:
    """Each montage has tars of its own; named channels make one of them, interpolated as far as allowed."""
    run_writer(tmp_path / "in" / "s" / "a.npz", seed=1)
    run_writer(tmp_path / "in" / "s" / "b.npz", seed=2, channels=("C4", "Cz", "C3"))
    report = make(tmp_path / "in", tmp_path / "apart")
    index = json.loads((tmp_path / "apart" / "index.json").read_text())
    assert {len(place["ch_names"]) for place in index["montages"].values()} == {9, 3}
    assert len(index["shards"]) == 2
    names: dict[str, Any] = {"ch_names": ["C3", "Cz", "C4", "FCz"]}
    assert make(tmp_path / "in", tmp_path / "all", **names)["failed"].keys() == {"s/b"}
    both = make(tmp_path / "in", tmp_path / "some", min_present=3, **names)
    assert both["segments"] == report["segments"]
    assert both["notes"]["1 channels interpolated: FCz"] == 1


def test_behind_a_hole_everything_starts_anew(tmp_path: Path) -> None:
    """No segment spans a hole, and those behind it are as if the recording had begun there."""
    blocks = [np.random.default_rng(i).integers(-50, 50, (20, 128)) for i in range(2)]
    for name in ("whole", "part"):
        (tmp_path / name).mkdir()
    write_edf(tmp_path / "whole" / "a.edf", blocks, ["C3", "C4"], onsets=[*range(7), *range(100, 113)])
    write_edf(tmp_path / "part" / "a.edf", [block[7:] for block in blocks], ["C3", "C4"])
    for name in ("whole", "part"):
        make(tmp_path / name, tmp_path / name)
    whole, part = (members(tmp_path / name / "a-0000.tar") for name in ("whole", "part"))
    assert [told["start"] for told, _ in whole] == [0, 20000, 20800, 21600]
    np.testing.assert_array_equal(np.stack([x for _, x in whole[1:]]), np.stack([x for _, x in part]))


def test_epochs_become_segments_of_their_own(tmp_path: Path) -> None:
    """Every epoch is a segment, filtered as if nothing had been before; one that is flat is left out."""
    data = np.random.default_rng(0).integers(-200, 200, (6, 500)).astype(np.int16)
    data[4] = 3
    (tmp_path / "in").mkdir()
    onsets = [0, 30, 60, 90, 120, 150]
    write_epochs(tmp_path / "in" / "SC4031E0.npz", data, onsets, [0] * 6, ["W"])
    low = {"kind": "bandpass", "high": 35.0}
    others = {"sfreq": 100.0, "segment_s": 5.0, "ch_names": ["Fpz-Cz"], "dsp": [low]}
    folder = {"path": tmp_path / "in", "subject": r"SC4(\d\d)"}
    report = make(tmp_path / "in", tmp_path / "out", folders=[folder], **others)
    assert report["rejected"] == {"flat": 1}
    assert report["short_hours"] == 0
    kept = members(tmp_path / "out" / "03-0000.tar")
    assert [told["start"] for told, _ in kept] == [100 * onset for i, onset in enumerate(onsets) if i != 4]
    info = load_recording(tmp_path / "in" / "SC4031E0.npz").info
    for (_, x), epoch in zip(kept, np.delete(data, 4, axis=0), strict=True):
        alone = (epoch * 0.5 + 1).astype(np.float32)[:, None]
        expected = Chain([Bandpass(high=35.0)], info)(make_chunk(alone, 0, np.arange(500) / 100)).data
        np.testing.assert_array_equal(x, expected.T.astype(np.float16))


def test_full_tars_are_followed_by_others(corpus_dir: Path, tmp_path: Path) -> None:
    """A subject's tars are closed at shard_mb, and hold the same segments in the same order."""
    make(corpus_dir, tmp_path / "one")
    make(corpus_dir, tmp_path / "many", shard_mb=0.05)
    parts = sorted((tmp_path / "many").glob("A1-*.tar"))
    assert len(parts) > 3
    whole = members(tmp_path / "one" / "A1-0000.tar")
    split = [segment for part in parts for segment in members(part)]
    assert [told for told, _ in split] == [told for told, _ in whole]


def test_subjects_of_one_name_in_two_folders_are_refused(corpus_dir: Path, tmp_path: Path) -> None:
    """Two people are never taken for one: their folders need a prefix."""
    with pytest.raises(ConfigError, match="give one of the folders a `prefix:`"):
        make(corpus_dir, tmp_path, folders=[corpus_dir, corpus_dir])
    folders = [
        {"path": corpus_dir, "include": ["A1"]},
        {"path": corpus_dir, "include": ["B-A1"], "prefix": "B-"},
    ]
    assert make(corpus_dir, tmp_path, folders=folders)["subjects"] == 2


def test_moabb_data_sets_are_prepared_without_files(tmp_path: Path) -> None:
    """A data set of MOABB comes through MOABB, subject by subject."""
    pytest.importorskip("moabb")
    moabb = [{"dataset": "FakeDataset", "include": [1, 2], "exclude": [2]}]
    report = make(tmp_path, tmp_path / "out", folders=[], moabb=moabb, sfreq=64.0, dsp=[])
    assert report["subjects"] == 1
    assert (tmp_path / "out" / "FakeDataset_001-0000.tar").is_file()
    with pytest.raises(ConfigError, match="no data set 'Nonesuch'"):
        make(tmp_path, tmp_path / "none", folders=[], moabb=[{"dataset": "Nonesuch"}])


def test_all_faults_of_a_configuration_are_listed(tmp_path: Path) -> None:
    """Every wrong key and value comes in one message, each with its path."""
    with pytest.raises(ConfigError) as caught:
        parse({"stype": "MEG", "sfreq": -1, "folders": [{"path": "x", "holds": 5}], "output": "y"})
    for words in ("stype", "sfreq", "folders[0].holds: unknown key 'holds'"):
        assert words in str(caught.value)
    with pytest.raises(ConfigError, match=r"folders\[0\].subject: .* no regular expression"):
        parse({"stype": "EEG", "sfreq": 100, "folders": [{"path": "x", "subject": "(S"}], "output": "y"})
    with pytest.raises(ConfigError, match="nothing to prepare"):
        parse({"stype": "EEG", "sfreq": 100, "output": "y"})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads(path: Path) -> None:
    """Each configs/prepare_*.yaml is complete and right."""
    assert load(path).n_times > 0


def test_the_command_prints_its_report(
    corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`bcitrain data prepare` prints one document; interrupted as well, and that says that it will go on."""
    path = tmp_path / "corpus.yaml"
    raw = settings(corpus_dir, tmp_path / "out").model_dump(mode="json")
    path.write_text(json.dumps(raw))
    run = CliRunner().invoke(app, ["data", "prepare", str(path), "--workers", "1", "--json"])
    report = json.loads(run.stdout)
    assert report["segments"] > 0
    assert report["signal_hours_per_s"] > 0
    shutil.rmtree(tmp_path / "out")

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shard_writer, "write", killed)
    run = CliRunner().invoke(app, ["data", "prepare", str(path), "--workers", "1", "--json"])
    assert run.exit_code == 130
    assert "Go on: the same command" in json.loads(run.stdout)["error"]["message"]
