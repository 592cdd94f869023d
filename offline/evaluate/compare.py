"""Which of two bundles is better, subject by subject: paired tests over people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.crossval.statistics import interval
from offline.evaluate.answers import answers
from offline.evaluate.figures import rounded
from offline.evaluate.run import Evaluation

DRAWS = 10_000
Floats = NDArray[np.float64]


def compare(evaluations: Sequence[Evaluation], *, seed: int = 0) -> list[dict[str, Any]]:
    """Compare any two of these on the recordings that both were scored on.

    Returns
    -------
    list of dict
        Per pair: ``first``, ``second``, ``n`` subjects, the mean ``difference`` of their accuracies (first
        minus second) with a 95-% bootstrap ``interval`` over subjects, how many the first is ``better``,
        ``equal`` or ``worse`` for, ``wilcoxon_p`` (exact, two-sided) and ``holm_p``, corrected for the number
        of pairs.  Pairs without a common subject are left out.
    """
    rows = [row for pair in combinations(evaluations, 2) if (row := _pair(*pair, seed)) is not None]
    return [
        {**row, "holm_p": corrected}
        for row, corrected in zip(rows, holm([row["wilcoxon_p"] for row in rows]), strict=True)
    ]


def paired(first: Floats, second: Floats, seed: int = 0) -> dict[str, Any]:
    """Return the paired figures of two accuracies per subject, (n,) each; see `compare`."""
    difference = np.round(first - second, 9)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(difference), size=(DRAWS, len(difference)))
    return {
        "n": len(difference),
        "difference": rounded(difference.mean()),
        "interval": interval(difference[drawn].mean(axis=1)),
        "better": int((difference > 0).sum()),
        "equal": int((difference == 0).sum()),
        "worse": int((difference < 0).sum()),
        "wilcoxon_p": wilcoxon(difference),
    }


def wilcoxon(differences: Floats) -> float:
    """Return the exact two-sided p of the signed-rank test (Wilcoxon 1945, Biometrics Bulletin 1).

    Zeros are dropped and equal sizes share their mean rank; the distribution is that of all signs of the very
    ranks found, so it is exact with ties, which SciPy's table is not.

    Parameters
    ----------
    differences : ndarray, shape (n,)
    """
    from scipy.stats import rankdata

    known = differences[differences != 0]
    doubled = np.rint(2 * rankdata(np.abs(known))).astype(int)  # whole numbers, mean ranks included
    ways = np.ones(1)
    for rank in doubled:
        ways = np.concatenate([ways, np.zeros(rank)]) + np.concatenate([np.zeros(rank), ways])
    positive = int(doubled[known > 0].sum())
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum()) / ways.sum()
    return rounded(min(1.0, 2 * tail))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number (Holm 1979, Scand. J. Statist. 6)."""
    order = np.argsort(p_values, kind="stable")
    corrected, highest = np.ones(len(p_values)), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, (len(p_values) - rank) * p_values[place])
        corrected[place] = min(1.0, highest)
    return [rounded(p) for p in corrected]


def _pair(first: Evaluation, second: Evaluation, seed: int) -> dict[str, Any] | None:
    shared = _places(first) & _places(second)
    accuracies = [_accuracies(one, shared) for one in (first, second)]
    people = sorted(accuracies[0].keys() & accuracies[1].keys())
    if not people:
        return None
    values = [np.array([some[name] for name in people]) for some in accuracies]
    return {"first": first.name, "second": second.name, **paired(values[0], values[1], seed)}


def _places(one: Evaluation) -> set[tuple[str, str]]:
    return {(played.subject, played.name) for played in one.played}


def _accuracies(one: Evaluation, shared: set[tuple[str, str]]) -> dict[str, float]:
    readout = one.bundle.readout
    played = [played for played in one.played if (played.subject, played.name) in shared]
    said = answers(played, readout.classes, readout.idle, one.task.protocol)
    return {name: float(said.right[rows].mean()) for name, rows in said.by_subject().items()}
