"""The last, linear step of a decoder: logits from the latent, ``logits = W latent + b``.

A bundle may carry the head apart from its graph, with what the latents of the source people look like: the
prior that a head for one person is refitted from (`engine.refit`).  The file is an ``.npz`` without pickles.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bundle import Bundle
from engine.gains import Gain
from streamer.errors import BundleError

Array = NDArray[np.float64]
HEAD_FILE = "head.npz"
KEYS = ("weight", "bias", "means", "covariance", "n_source")
CENTRED = ("centred_weight", "centred_bias")
GAINED = "gained"  # (n, 2): trials of each class, and what one person gained by them, points
MAX_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Head:
    """A linear read-out.

    Attributes
    ----------
    weight : ndarray, shape (n_classes, D), float64
    bias : ndarray, shape (n_classes,), float64
    """

    weight: Array
    bias: Array

    def logits(self, latent: NDArray[Any]) -> Array:
        """Return the logits of one latent (D,) or of many (n, D); float64, the last axis is the classes."""
        with np.errstate(all="ignore"):  # what is not finite stays so, and is rejected downstream
            result: Array = latent.astype(np.float64) @ self.weight.T + self.bias
        return result

    def centred_on(self, mean: Array) -> Head:
        """Return the head that gives to a latent what this one gives to that latent minus ``mean`` (D,)."""
        return Head(self.weight, self.bias - self.weight @ mean)


@dataclass(frozen=True, slots=True)
class SourceHead:
    """The head that a bundle was trained with, and the latents of the people that it was trained on.

    Attributes
    ----------
    head : Head
        Gives the logits of the graph.
    means : ndarray, shape (n_classes, D), float64
        Mean latent of each class over the source people.
    covariance : ndarray, shape (D, D), float64
        Pooled over classes and people, each person around their own mean of the class.
    n_source : int
        People behind the two.
    centred : Head or None
        For latents minus the person's own mean at rest.
    gains : tuple of Gain
        What a refit gained people whom the model has not learnt from; empty where nobody has measured.
    """

    head: Head
    means: Array
    covariance: Array
    n_source: int
    centred: Head | None = None
    gains: tuple[Gain, ...] = ()


def source_head(bundle: Bundle) -> SourceHead:
    """Return the head that the bundle carries.

    Raises
    ------
    BundleError
        It carries none, or one that does not fit its graph.
    """
    readout = bundle.readout
    if readout.head is None or readout.latent is None:
        raise BundleError(
            f"Bundle {bundle.label} carries no head that could be refitted (readout.head). Export it again, "
            "or choose another bundle."
        )
    where = f"Bundle file {bundle.folder / readout.head}"
    latent = next(tensor for tensor in bundle.manifest.graph.outputs if tensor.name == readout.latent)
    return _checked(_arrays(bundle.head_bytes, where), len(readout.classes), latent.shape[-1], where)


def pack(source: SourceHead) -> bytes:
    """Return the content of a bundle's head file."""
    arrays: dict[str, Any] = {
        "weight": source.head.weight,
        "bias": source.head.bias,
        "means": source.means.astype(np.float32),
        "covariance": source.covariance.astype(np.float32),  # the size of the file, and only a prior
        "n_source": np.int64(source.n_source),
    }
    if source.centred is not None:
        arrays |= {"centred_weight": source.centred.weight, "centred_bias": source.centred.bias}
    if source.gains:
        rows = [(row.trials, points) for row in source.gains for points in row.points]
        arrays[GAINED] = np.array(rows, dtype=np.float64)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _arrays(content: bytes, where: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of the file by name."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            found = {name: file[name] for name in (*KEYS, *CENTRED, GAINED) if name in file}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{where} is no npz of arrays ({error}). Export the bundle again.") from error
    missing = [name for name in KEYS if name not in found]
    if len(found.keys() & set(CENTRED)) == 1:
        missing += [name for name in CENTRED if name not in found]
    if missing:
        raise BundleError(f"{where} lacks {', '.join(missing)}. Export the bundle again.")
    return found


def _checked(found: dict[str, NDArray[Any]], n_classes: int, dim: int, where: str) -> SourceHead:
    """Return the arrays as a head; `BundleError` names every one of another shape or not finite."""
    square, rows = (dim, dim), (n_classes, dim)
    n_gains = len(found[GAINED]) if GAINED in found and found[GAINED].ndim else 0
    expected = {
        "weight": rows, "bias": (n_classes,), "means": rows, "covariance": square, "n_source": (),
        "centred_weight": rows, "centred_bias": (n_classes,), GAINED: (min(n_gains, MAX_ROWS), 2),
    }  # fmt: skip
    wrong = [
        f"{name} is {array.dtype} {array.shape}, expected finite numbers {expected[name]}"
        for name, array in found.items()
        if array.shape != expected[name] or array.dtype.kind not in "fiu" or not np.isfinite(array).all()
    ]
    if wrong:
        raise BundleError(f"{where} does not fit the graph: {'; '.join(wrong)}. Export the bundle again.")
    values = {name: array.astype(np.float64) for name, array in found.items()}
    centred = Head(values["centred_weight"], values["centred_bias"]) if CENTRED[0] in values else None
    return SourceHead(
        Head(values["weight"], values["bias"]),
        values["means"],
        values["covariance"],
        int(values["n_source"]),
        centred,
        _gains(values.get(GAINED, np.empty((0, 2))), where),
    )


def _gains(rows: Array, where: str) -> tuple[Gain, ...]:
    """Return the table, a row per number of trials; `BundleError` where it can be none."""
    table = []
    for trials in np.unique(rows[:, 0]):
        points = rows[rows[:, 0] == trials, 1]
        if trials < 1 or trials % 1 or len(points) < 2:
            raise BundleError(
                f"{where} tells in `{GAINED}` what {len(points)} people gained by {trials:g} trials; "
                "expected at least 2 people, and whole trials. Export the bundle again."
            )
        table.append(Gain(int(trials), tuple(points.tolist())))
    return tuple(table)
