"""Classical decoders on the same trials, so that a figure has something to stand beside.

Common spatial patterns + LDA and Riemannian tangent space + logistic regression, each with and without
running Euclidean alignment: causal filters with carried state, covariances of the 2.5 s before the answer.
They see nothing that the bundle does not see, and train on the recordings that the bundle trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.adapt import fit
from engine.bundle import Bundle
from engine.scoring import ANSWER_AT_S, ANSWER_FROM_S
from offline.data.corpus import Corpus, Recording
from offline.data.trials import with_prior
from streamer.dsp import StepConfig
from streamer.dsp.align import Config as Align
from streamer.dsp.bandpass import Config as Bandpass
from streamer.errors import ConfigError, RecordingError
from streamer.types import make_chunk

BAND = (8.0, 30.0)  # mu and beta: what both decoders are made for
N_PATTERNS = 6


@dataclass(frozen=True, slots=True)
class Windows:
    """Covariances (n, n_chans, n_chans) of trials, what was asked for in each, and whose they are."""

    covariances: NDArray[np.float64]
    labels: NDArray[np.str_]
    subjects: NDArray[np.str_]


def score_baselines(
    bundle: Bundle, train_folder: Path | None, test: Sequence[Recording]
) -> dict[str, dict[str, Any]]:
    """Train each baseline on the bundle's training recordings and score it on ``test``.

    Returns
    -------
    dict
        By name: ``accuracy``, ``n_trials``, ``per_subject``.

    Raises
    ------
    ConfigError
        No folder given.
    RecordingError
        The folder holds none of the recordings that the bundle was trained on.
    """
    train = _training(bundle, train_folder)
    contract = bundle.manifest.input
    cued = [name for name in bundle.readout.classes if name != bundle.readout.idle]
    band = Bandpass(low=BAND[0], high=BAND[1], order=2)
    scores = {}
    for suffix, steps in (("", [band]), (" + alignment", [band, _alignment(bundle)])):
        dsp = with_prior(train, contract.ch_names, steps)
        windows = [_windows(part, bundle, dsp, cued) for part in (train, test)]
        for name, build in (("CSP + LDA", _csp_lda), ("tangent space + LR", _tangent_space)):
            scores[name + suffix] = _score(build(), *windows)
    return scores


def _training(bundle: Bundle, folder: Path | None) -> list[Recording]:
    if folder is None:
        raise ConfigError("--baselines needs --train-data: the folder that the bundle was trained on.")
    known = set(bundle.manifest.provenance.get("fingerprints", {}).get("train", ()))
    corpus = Corpus(folder)
    every = (recording for subject in corpus.subjects for recording in corpus.recordings(subject))
    found = [recording for recording in every if recording.fingerprint in known]
    if not found:
        raise RecordingError(
            f"{folder} holds none of the {len(known)} recordings that bundle {bundle.label} was trained on: "
            "give --train-data the folder of its training corpus."
        )
    return found


def _alignment(bundle: Bundle) -> StepConfig:
    """Return the bundle's own alignment for another band: its settings without its prior."""
    for step in bundle.manifest.input.dsp:
        if isinstance(step, Align):
            return step.model_copy(update={"prior": None})
    return Align()


def _windows(
    recordings: Iterable[Recording], bundle: Bundle, dsp: Sequence[StepConfig], cued: Sequence[str]
) -> Windows:
    """Return the trials' covariances from `ANSWER_FROM_S` to `ANSWER_AT_S` after the cue."""
    contract = bundle.manifest.input.model_copy(update={"dsp": tuple(dsp)})
    other = replace(bundle, manifest=bundle.manifest.model_copy(update={"input": contract}))
    covariances, labels, subjects = [], [], []
    for recording in recordings:
        times = np.arange(len(recording)) / recording.info.sfreq
        signal = fit(other, recording.info).chain(make_chunk(recording.data, 0, times))
        for cue in recording.cues(cued):
            inside = (signal.times > cue.time + ANSWER_FROM_S) & (signal.times <= cue.time + ANSWER_AT_S)
            if times[-1] >= cue.time + ANSWER_AT_S:
                window = signal.data[inside].astype(np.float64)
                covariances.append(window.T @ window / len(window))
                labels.append(cue.label)
                subjects.append(recording.subject)
    return Windows(_regular(np.array(covariances)), np.array(labels), np.array(subjects))


def _regular(covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add a little of the identity: zero padding and dead channels leave singular covariances."""
    n_chans = covariances.shape[-1]
    power = np.trace(covariances, axis1=1, axis2=2) / n_chans + 1e-12
    regular: NDArray[np.float64] = covariances + 1e-3 * power[:, None, None] * np.eye(n_chans)
    return regular


def _csp_lda() -> Any:
    from pyriemann.spatialfilters import CSP
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline

    return make_pipeline(CSP(nfilter=N_PATTERNS, metric="euclid", log=True), LinearDiscriminantAnalysis())


def _tangent_space() -> Any:
    from pyriemann.tangentspace import TangentSpace
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # C chosen on validation subjects, with alignment: .683, .708, .679 for 0.01, 0.1, 1.
    return make_pipeline(TangentSpace(), LogisticRegression(C=0.1, max_iter=2000))


def _score(classifier: Any, train: Windows, test: Windows) -> dict[str, Any]:
    """Return accuracy, number of trials and accuracy per subject."""
    classifier.fit(train.covariances, train.labels)
    right = classifier.predict(test.covariances) == test.labels
    subjects = {name: right[test.subjects == name] for name in np.unique(test.subjects)}
    return {
        "accuracy": round(float(right.mean()), 4),
        "n_trials": len(right),
        "per_subject": {
            str(name): {"accuracy": round(float(some.mean()), 4), "n_trials": len(some)}
            for name, some in subjects.items()
        },
    }
