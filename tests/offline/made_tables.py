"""Files of people for tests: series of six regions, and matrices between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from offline.data.tables import Person, Table, read_table

TABLE: TypeAdapter[Any] = TypeAdapter(Table)
N, VOLUMES, TR_S = 6, 50, 2.0
Series = np.ndarray[Any, Any]


def series(seed: int = 0, volumes: int = VOLUMES) -> Series:
    """Return (volumes, N) with means and spreads that differ by region."""
    rng = np.random.default_rng(seed)
    return rng.normal(np.arange(N), 1 + np.arange(N), (volumes, N))


def matrix(seed: int = 0, n: int = N) -> Series:
    """Return a symmetric matrix with ones on the diagonal."""
    return np.corrcoef(np.random.default_rng(seed).normal(size=(n, 40)))


def people(**table: Any) -> list[Person]:
    return read_table(TABLE.validate_python(table))


def roi_folder(folder: Path, **others: Any) -> list[Person]:
    return people(**{"kind": "roi", "path": folder, "nodes": "six", "tr_s": TR_S, "file_tr_s": TR_S} | others)


def write_1d(path: Path, data: Series) -> None:
    """Write a file as C-PAC does: the regions in a comment, columns apart by white space."""
    names = "\t".join(f"#{2001 + i}" for i in range(data.shape[1]))
    path.write_text(names + "\n" + "\n".join("  ".join(f"{v:.8g}" for v in row) for row in data) + "\n")


def write_csv(path: Path, data: Series, header: str = "", delimiter: str = ",") -> None:
    np.savetxt(path, data, delimiter=delimiter, header=header, comments="")
