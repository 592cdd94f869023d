"""ROI time series from every kind of file, and what is said of bad ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_tables import TR_S, VOLUMES, N, Series, people, roi_folder, series, write_1d, write_csv

from offline.data import roi
from offline.data.roi import RoiSettings, Run, to_signal
from streamer.errors import MissingDependency, RecordingError

WRITERS: dict[str, Callable[[Path, Series], Any]] = {
    ".1D": write_1d,
    ".csv": lambda path, data: write_csv(path, data, "frontal,temporal,parietal,insula,occipital,caudate"),
    ".tsv": lambda path, data: write_csv(path, data, delimiter="\t"),
    ".npy": np.save,
    ".npz": lambda path, data: np.savez(path, data=data),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_series_is_the_same_from_every_file(tmp_path: Path, suffix: str) -> None:
    """Whatever a run is stored as, it becomes the same standardised series, one row per region."""
    WRITERS[suffix](tmp_path / f"sub-01_task-rest{suffix}", series())
    (person,) = roi_folder(tmp_path)
    expected = (series() - series().mean(0)) / series().std(0)
    assert (person.subject, person.modality, person.nodes, person.sfreq) == ("sub-01", "fmri", "six", 0.5)
    assert person.signal is not None
    assert person.signal.shape == (N, VOLUMES)
    np.testing.assert_allclose(person.signal, expected.T, atol=1e-5)


def test_runs_are_brought_to_one_rate() -> None:
    """A slow wave keeps its frequency when volumes of 1.5 s become volumes of 2 s, and a fast one is gone."""
    time = np.arange(400) * 1.5
    slow, fast = np.sin(2 * np.pi * 0.03 * time), np.sin(2 * np.pi * 0.30 * time)
    data = np.stack([slow, slow + fast], axis=1)
    found = to_signal(Run("made", data, 1.5), RoiSettings(nodes="two", tr_s=2.0))
    assert found is not None
    assert found.shape == (2, 300)
    expected = np.sqrt(2) * np.sin(2 * np.pi * 0.03 * np.arange(300) * 2.0)
    np.testing.assert_allclose(found[:, 20:-20], np.stack([expected] * 2)[:, 20:-20], atol=0.06)
    np.testing.assert_allclose(found.std(axis=1), 1.0, rtol=1e-4)


@pytest.mark.parametrize("uncovered", ["refuse", "zero", "leave_out"])
def test_a_region_that_was_not_reached_is_named_zeroed_or_left_out(tmp_path: Path, uncovered: str) -> None:
    """A region without any change is refused by number, or its series is zero, or the run is left out."""
    flat = series()
    flat[:, 3] = 7.0
    np.save(tmp_path / "a.npy", flat)
    np.save(tmp_path / "b.npy", series(1))
    if uncovered == "refuse":
        with pytest.raises(
            RecordingError, match=r"a\.npy does not vary in 1 region .*: 3\).*uncovered: zero"
        ):
            roi_folder(tmp_path)
        return
    found = roi_folder(tmp_path, uncovered=uncovered)
    assert [person.subject for person in found] == (["a", "b"] if uncovered == "zero" else ["b"])
    if uncovered == "zero":
        assert found[0].signal is not None
        assert not found[0].signal[3].any()
        assert found[0].signal.std(axis=1)[[0, 1, 2, 4, 5]] == pytest.approx(1.0, rel=1e-4)


def holed(data: Series) -> Series:
    data[7, 2] = np.nan
    return data


def counted(data: Series) -> Series:
    return np.column_stack([np.arange(len(data)), data])


BAD_SERIES = {
    "beyond float32": (lambda: series() * 1e300, "not finite in 6 regions"),
    "counted rows": (lambda: counted(series()), "counts its rows in the first column"),
    "not finite": (lambda: holed(series()), r"not finite in 1 region \(counted from 0: 2\)"),
    "short": (lambda: series(volumes=12), r"lasts 24 s \(12 volumes of 2 s\); expected 60 s"),
    "one column": (lambda: series()[:, 0], "expected numbers, one row per volume"),
    "words": (lambda: np.array([["a", "b"]]), "expected numbers, one row per volume"),
    "objects": (lambda: np.array([{}, {}]), "cannot be read"),
}


@pytest.mark.parametrize("what", BAD_SERIES)
def test_a_bad_series_is_refused_in_words(tmp_path: Path, what: str) -> None:
    """A run that cannot be used says which file, what is wrong and what was expected."""
    make, words = BAD_SERIES[what]
    np.save(tmp_path / "sub-09.npy", make())
    with pytest.raises(RecordingError, match=words) as caught:
        roi_folder(tmp_path)
    assert "sub-09.npy" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"x,y\n1,2\n3\n", "cannot be read"),
        ("a.1D", b"# only a header\n", "no row of numbers"),
        ("a.npz", b"PK\x03\x04 cut", "cannot be read"),
        ("a.npy", b"", "cannot be read"),
        ("a.tsv", b"1\t2\n3\tthree\n", "cannot be read"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8',(\n", "cannot be read"),
        ("a.nii.gz", b"\x1f\x8b\x08\x00 cut", "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused_in_words(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    """A file that is cut or no such file at all is named; nothing but the project's own error comes out."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / name).write_bytes(content)
    atlas = None
    if name.endswith(".nii.gz"):
        pytest.importorskip("nilearn")
        (atlas := tmp_path / "atlas.nii").touch()
    with pytest.raises(RecordingError, match=words) as caught:
        roi_folder(tmp_path / "runs", atlas=atlas)
    assert name in str(caught.value)


def test_an_npz_with_a_flipped_byte_is_refused_in_words(tmp_path: Path) -> None:
    """Wherever a compressed file is damaged, its data are the same or the project's own error comes out."""
    path = tmp_path / "all.npz"
    np.savez_compressed(path, data=series(), n_volumes=[VOLUMES])
    whole, said = path.read_bytes(), []
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            roi_folder(path)
        except RecordingError as error:
            said.append(str(error))
    assert len(said) > len(whole) // 97 // 2
    assert all("all.npz" in words for words in said)


ODD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "data without axes": ({"data": np.array(3.0)}, "data of shape ()"),
    "volumes in words": ({"n_volumes": np.array(["x", "y"])}, "a whole number of volumes per subject"),
    "volumes as one number": ({"n_volumes": np.array(100)}, "a whole number of volumes per subject"),
    "rates in words": ({"tr_s": np.array(["x", "y"])}, "expected the seconds per volume of 2 subjects"),
    "three rates": ({"tr_s": np.ones(3)}, "expected the seconds per volume of 2 subjects"),
    "sites of others": ({"site": np.array(["A"])}, r"'site' of shape \(1,\)"),
}


@pytest.mark.parametrize("what", ODD_ARRAYS)
def test_an_npz_that_does_not_fit_together_is_refused_in_words(tmp_path: Path, what: str) -> None:
    """Arrays of another shape or type than they should have are named; one rate for all is enough."""
    changes, words = ODD_ARRAYS[what]
    good: dict[str, Any] = {
        "data": np.concatenate([series(1), series(2)]),
        "n_volumes": [50, 50],
        "tr_s": 1.5,
    }
    np.savez(tmp_path / "good.npz", **good)
    assert [p.n_nodes for p in roi_folder(tmp_path / "good.npz", file_tr_s=None)] == [N, N]
    np.savez(tmp_path / "odd.npz", **good | changes)
    with pytest.raises(RecordingError, match=words) as caught:
        roi_folder(tmp_path / "odd.npz")
    assert "odd.npz" in str(caught.value)


def test_columns_that_are_only_numbered_have_a_header(tmp_path: Path) -> None:
    """A first line that counts up, as pandas and atlases write it, is no volume; other whole numbers are."""
    for name, header in (("pandas", "0,1,2,3,4,5"), ("atlas", "2001,2002,2101,2102,2111,2112")):
        write_csv(tmp_path / f"{name}.csv", series(1), header)
    np.savetxt(tmp_path / "counts.csv", 10 * series(2).round() + np.arange(N), delimiter=",", fmt="%d")
    lengths = {p.subject: p.signal.shape[1] for p in roi_folder(tmp_path) if p.signal is not None}
    assert lengths == {"pandas": VOLUMES, "atlas": VOLUMES, "counts": VOLUMES}


def test_a_rate_that_is_not_told_is_asked_for(tmp_path: Path) -> None:
    """A file without a repetition time is refused with the setting that gives it."""
    np.save(tmp_path / "a.npy", series())
    with pytest.raises(RecordingError, match="give it, in seconds, as `file_tr_s`"):
        roi_folder(tmp_path, file_tr_s=None)


def test_an_npz_of_many_runs_is_cut_by_its_volumes(tmp_path: Path) -> None:
    """Each subject of an npz gets its own rows, rate, label spelt out, and site."""
    lengths, rates = [50, 40], [2.0, 2.5]
    data = np.concatenate([series(i, n) for i, n in enumerate(lengths)])
    np.savez(
        tmp_path / "all.npz",
        data=data.astype(np.float32),
        n_volumes=lengths,
        subject_id=np.array([51, 52]),
        autism=np.array([1, 0]),
        site=np.array(["PITT", "OHSU"]),
        tr_s=rates,
        meta=json.dumps({"autism": {"1": "autism", "0": "control"}}),
    )
    found = roi_folder(tmp_path / "all.npz", label="autism", prefix="abide_", file_tr_s=None)
    assert [(p.subject, p.label, p.site) for p in found] == [
        ("abide_51", "autism", "PITT"),
        ("abide_52", "control", "OHSU"),
    ]
    assert [p.signal.shape[1] for p in found if p.signal is not None] == [50, 50]  # 40 of 2.5 s are 50 of 2 s
    np.testing.assert_allclose(found[0].signal, to_signal(Run("", series(0), 2.0), settings()), atol=1e-5)
    np.savez(tmp_path / "cut.npz", data=data[:-1], n_volumes=lengths)
    with pytest.raises(RecordingError, match="89 rows of data, but n_volumes adds up to 90"):
        roi_folder(tmp_path / "cut.npz")


def settings() -> RoiSettings:
    return RoiSettings(nodes="six", tr_s=TR_S)


def test_nifti_gives_the_mean_of_each_region(tmp_path: Path) -> None:
    """An image's series are the means over the voxels of each region, at the header's rate."""
    nibabel = pytest.importorskip("nibabel")
    pytest.importorskip("nilearn")
    labels = np.zeros((8, 6, 6), dtype=np.int16)
    labels[1:4, 1:5, 1:5], labels[4:7, 1:5, 1:5] = 5, 9
    rng = np.random.default_rng(3)
    voxels = 100 + rng.normal(size=(*labels.shape, VOLUMES)).astype(np.float32)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_zooms((3.0, 3.0, 3.0, 2000.0))
    image.header.set_xyzt_units("mm", "msec")
    (tmp_path / "bold").mkdir()
    nibabel.save(image, tmp_path / "bold" / "sub-07_bold.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "atlas.nii.gz")
    (person,) = roi_folder(tmp_path / "bold", file_tr_s=None, atlas=tmp_path / "atlas.nii.gz")
    means = np.stack([voxels[labels == label].mean(axis=0) for label in (5, 9)])
    expected = (means - means.mean(1, keepdims=True)) / means.std(1, keepdims=True)
    assert person.subject == "sub-07"
    np.testing.assert_allclose(person.signal, expected, atol=1e-3)
    with pytest.raises(RecordingError, match="name the image of its regions as `atlas`"):
        roi_folder(tmp_path / "bold")
    far = np.array(affine)
    far[:3, 3] = 500.0
    nibabel.save(nibabel.Nifti1Image(labels, far), tmp_path / "far.nii.gz")
    with pytest.raises(RecordingError, match=r"sub-07_bold\.nii\.gz"):
        roi_folder(tmp_path / "bold", atlas=tmp_path / "far.nii.gz")


def test_nifti_without_nilearn_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nilearn is missing, the error names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "nilearn.maskers", None)
    with pytest.raises(MissingDependency, match=r"bcistream\[fmri\]"):
        roi.read_runs(tmp_path / "a.nii.gz", tmp_path / "atlas.nii.gz")


def test_real_series_are_at_one_rate(data_dir: Path) -> None:
    """ABIDE's runs of two rates come out at one, and the regions that were not reached are named."""
    table = {"kind": "roi", "path": data_dir / "fmri_abide_aal" / "abide_aal116.npz", "nodes": "aal116"}
    found = people(**table, tr_s=2.5, label="autism", uncovered="leave_out")
    assert len(found) == 87
    assert {p.signal.shape[1] for p in found if p.signal is not None} == {117, 123, 77}
    with pytest.raises(RecordingError, match=r"50004 does not vary in 1 region \(counted from 0: 101\)"):
        people(**table, tr_s=2.5)
