"""Tables of people: connectomes, pairs, who is who, and what is said of tables that do not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_tables import VOLUMES, N, Series, matrix, people, roi_folder, series, write_1d, write_csv
from typer.testing import CliRunner

from offline.cli import app
from offline.data.connectomes import from_triangles, to_triangles
from streamer.errors import RecordingError


def test_triangles_are_row_by_row() -> None:
    """The pairs above the diagonal come row by row, and turn back into the same matrix."""
    found = from_triangles(np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]), "made")[0]
    np.testing.assert_array_equal(found[0], [0, 1, 2, 3])
    np.testing.assert_array_equal(found[1], [1, 0, 4, 5])
    np.testing.assert_array_equal(to_triangles(found), [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".npy", ".npz"])
def test_a_folder_of_matrices(tmp_path: Path, suffix: str) -> None:
    """A matrix is the same from every file: diagonal zero, with label and site of the subject table."""
    folder = tmp_path / "matrices"
    folder.mkdir()
    path = folder / f"p1{suffix}"
    {".npz": lambda: np.savez(path, edges=matrix()), ".npy": lambda: np.save(path, matrix())}.get(
        suffix, lambda: write_csv(path, matrix(), delimiter="," if suffix == ".csv" else "\t")
    )()
    (tmp_path / "who.csv").write_text("subject,label,site\np1,control,B\n")
    table = {"kind": "connectomes", "path": folder, "nodes": "six", "prefix": "x_", "modality": "eeg"}
    (person,) = people(**table, labels=tmp_path / "who.csv")
    assert (person.subject, person.modality, person.label, person.site) == ("x_p1", "eeg", "control", "B")
    assert person.edges is not None
    np.testing.assert_allclose(person.edges[0], matrix() - np.eye(N), atol=1e-6)
    with pytest.raises(RecordingError, match="say its `modality`"):
        people(**table | {"modality": None})


def crooked() -> Series:
    return matrix() + np.triu(np.full((N, N), 0.1))


BAD_MATRICES = {
    "not square": (lambda: matrix()[:, :-1], "expected a square matrix"),
    "not symmetric": (crooked, r"not symmetric \(entries differ by up to 0.1\)"),
    "not finite": (lambda: np.where(np.arange(N) == 2, np.nan, matrix()), "not finite"),
    "empty": (lambda: np.eye(N), "zero everywhere"),
    "objects": (lambda: np.array([[{}]]), "cannot be read"),
    "no bands": (lambda: np.zeros((0, N, N)), "expected a square matrix, or one per band"),
    "beyond float32": (lambda: matrix() * 1e300, "not finite"),
}


@pytest.mark.parametrize("what", BAD_MATRICES)
def test_a_bad_matrix_is_refused_in_words(tmp_path: Path, what: str) -> None:
    """A matrix that is no connectome says which file and what was expected."""
    make, words = BAD_MATRICES[what]
    np.save(tmp_path / "p9.npy", make())
    with pytest.raises(RecordingError, match=words) as caught:
        people(kind="connectomes", path=tmp_path, nodes="six", modality="fmri")
    assert "p9.npy" in str(caught.value)


def test_a_table_of_pairs_leaves_empty_cells_unpaired(tmp_path: Path) -> None:
    """Files are read by what the table says they hold; an empty cell is nobody in that modality."""
    np.save(tmp_path / "e1.npy", np.stack([matrix(1), matrix(2)]))
    write_1d(tmp_path / "f1.1D", series(1))
    write_1d(tmp_path / "f2.1D", series(2))
    (tmp_path / "pairs.tsv").write_text(
        "subject\tlabel\tsite\teeg\tfmri\np1\tpatient\tA\te1.npy\tf1.1D\np2\tcontrol\tA\tn/a\tf2.1D\n\n"
    )
    table = {
        "kind": "pairs",
        "path": tmp_path / "pairs.tsv",
        "eeg": {"holds": "edges", "nodes": "six"},
        "fmri": {"holds": "signal", "nodes": "six", "tr_s": 1.0, "file_tr_s": 2.0},
        "prefix": "k_",
    }
    found = people(**table)
    assert [(p.subject, p.modality, p.label) for p in found] == [
        ("k_p1", "eeg", "patient"),
        ("k_p1", "fmri", "patient"),
        ("k_p2", "fmri", "control"),
    ]
    assert found[0].edges is not None
    assert found[1].signal is not None
    assert (found[0].edges.shape, found[1].signal.shape) == ((2, N, N), (N, 2 * VOLUMES))
    (tmp_path / "pairs.tsv").write_text("subject\teeg\np1\te1.npy\n")
    with pytest.raises(RecordingError, match="no column fmri; it has subject, eeg"):
        people(**table)
    (tmp_path / "pairs.tsv").write_text("subject\teeg\tfmri\np1\tgone.npy\t\n")
    with pytest.raises(RecordingError, match=r"No file .*gone\.npy"):
        people(**table)


def test_a_subject_twice_and_regions_that_differ_are_refused(tmp_path: Path) -> None:
    """One run per subject and modality, and as many regions in each."""
    np.save(tmp_path / "sub-01_run-1.npy", series(1))
    np.save(tmp_path / "sub-01_run-2.npy", series(2))
    with pytest.raises(RecordingError, match="has fmri of sub-01 more than once"):
        roi_folder(tmp_path)
    assert len(roi_folder(tmp_path, subject=r"sub-\d+_run-\d")) == 2
    assert [p.subject for p in roi_folder(tmp_path, subject=r"(sub-\d+)_run-1")] == ["sub-01"]
    np.save(tmp_path / "sub-02.npy", series(3).T.repeat(10, axis=0))
    with pytest.raises(RecordingError, match="sub-02 has 50 regions, fmri of sub-01 6"):
        roi_folder(tmp_path, subject=r"(sub-\d+)(_run-1)?\.npy")


def test_a_fingerprint_is_of_the_numbers(tmp_path: Path) -> None:
    """The same numbers under two names have one fingerprint, others another."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        np.save(tmp_path / f"{name}.npy", series(seed))
    a, b, c = (person.fingerprint for person in roi_folder(tmp_path))
    assert a == b != c


def test_a_folder_without_files_is_said(tmp_path: Path) -> None:
    """An empty folder, and one that is not there, are refused in words."""
    with pytest.raises(RecordingError, match="holds no file"):
        roi_folder(tmp_path)
    with pytest.raises(RecordingError, match="No file or folder"):
        roi_folder(tmp_path / "gone")
    (tmp_path / "a.csv").write_text("1,2\n")
    with pytest.raises(RecordingError, match=r"a\.csv is a single file: expected an \.npz of many people"):
        roi_folder(tmp_path / "a.csv")


def test_an_npz_of_connectomes_that_does_not_fit_together_is_refused_in_words(tmp_path: Path) -> None:
    """Subjects without an axis, and modalities of different atlases under one name, are told."""
    table = {"kind": "connectomes", "path": tmp_path / "all.npz", "nodes": "six"}
    eeg, fmri = np.ones((2, 3, 15)), np.ones((2, 10))
    np.savez(tmp_path / "all.npz", subject="a", eeg=eeg)
    with pytest.raises(RecordingError, match=r"expected subject \(n,\)"):
        people(**table)
    np.savez(tmp_path / "all.npz", subject=np.array([b"a", b"b"]), eeg=eeg)
    assert [p.subject for p in people(**table)] == ["a", "b"]
    np.savez(tmp_path / "all.npz", subject=["a", "b"], eeg=eeg, fmri=fmri)
    with pytest.raises(RecordingError, match="fmri of a has 5 regions, eeg of a 6"):
        people(**table)


def test_a_table_is_listed_before_it_is_described(tmp_path: Path) -> None:
    """`bcitrain data list` shows the people of an npz and the rows of a subject table."""

    def listed(name: str) -> Any:
        result = CliRunner().invoke(app, ["data", "list", str(tmp_path / name), "--json"])
        return json.loads(result.stdout)["people"] if result.exit_code == 0 else result.stdout

    np.savez(tmp_path / "edges.npz", subject=["a", "b"], eeg=np.ones((2, 3, 15)), label=["x", "y"])
    np.savez(tmp_path / "runs.npz", data=series(), n_volumes=[30, 20], tr_s=2.0, site=["A", "B"])
    np.savez(tmp_path / "other.npz", x=series())
    (tmp_path / "who.tsv").write_text("subject\tlabel\teeg\np1\tcontrol\tn/a\textra\n")
    (tmp_path / "notes.txt").write_text("")
    edges = {"modality": "eeg", "regions": N, "bands": 3, "site": ""}
    assert listed("edges.npz") == [
        edges | {"subject": "a", "label": "x"},
        edges | {"subject": "b", "label": "y"},
    ]
    assert [(one["subject"], one["volumes"], one["tr_s"], one["site"]) for one in listed("runs.npz")] == [
        ("runs_000", 30, 2.0, "A"),
        ("runs_001", 20, 2.0, "B"),
    ]
    assert listed("who.tsv") == [{"subject": "p1", "label": "control", "eeg": ""}]
    assert "connectomes has `subject`" in listed("other.npz")
    assert "no table of people" in listed("notes.txt")


def test_real_connectomes_are_correlations(data_dir: Path) -> None:
    """Put together row by row, the correlation matrices of the data have no negative eigenvalue."""
    path = data_dir / "eegfmri_tle_connectomes" / "connectomes_desikan68.npz"
    found = people(kind="connectomes", path=path, nodes="desikan68")
    fmri = [p.edges[0] for p in found if p.modality == "fmri" and p.edges is not None]
    assert len(found) == 138
    assert {p.label for p in found} == {"control", "ltle", "rtle"}
    assert np.linalg.eigvalsh(np.stack(fmri) + np.eye(68)).min() > -1e-5
    assert all(p.edges is not None and p.edges.shape == (5, 68, 68) for p in found if p.modality == "eeg")
