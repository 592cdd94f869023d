"""What a classical decoder sees of a window and how it tells the classes apart: one class per `Reader`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from streamer.components import Config

Windows = NDArray[np.float32]
Features = NDArray[np.float64]
LOADING = 1e-3  # of the mean power, on the diagonal: dead channels leave singular covariances


class ReaderConfig(Config, ABC):
    """Features and classifier.

    Attributes
    ----------
    matrices : bool
        The features are covariances, (n, C, C), not vectors, (n, p).
    """

    matrices: ClassVar[bool] = False

    @property
    def sees(self) -> str:
        """What decides the features: readers that say the same see the same."""
        return self.model_dump_json(by_alias=True)

    @abstractmethod
    def features(self, x: Windows, sfreq: float) -> Features:
        """Return what is seen of windows (n, C, T), each by itself."""

    @abstractmethod
    def classifier(self, n_classes: int) -> Any:
        """Return an untrained classifier with ``fit`` and ``predict_proba``."""


class Covariances(ReaderConfig, ABC):
    """The spatial covariance of the window, the mean left in: the signal is band-passed."""

    matrices: ClassVar[bool] = True

    @property
    def sees(self) -> str:
        """The same whatever reads them."""
        return "covariances"

    def features(self, x: Windows, _sfreq: float) -> Features:
        """Return the covariances, (n, C, C), with `LOADING` of the mean power on their diagonals."""
        wide = x.astype(np.float64)
        covariances = wide @ wide.transpose(0, 2, 1) / x.shape[-1]
        power = np.trace(covariances, axis1=1, axis2=2) / x.shape[1] + 1e-12
        loaded: Features = covariances + LOADING * power[:, None, None] * np.eye(x.shape[1])
        return loaded


class CspLda(Covariances):
    """Common spatial patterns, log power, linear discriminant analysis (Blankertz et al. 2008)."""

    kind: Literal["csp_lda"]
    patterns: PositiveInt = 6

    def classifier(self, _n_classes: int) -> Any:
        """Return the two in sequence."""
        from pyriemann.spatialfilters import CSP
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        from sklearn.pipeline import make_pipeline

        patterns = CSP(nfilter=self.patterns, metric="euclid", log=True)
        return make_pipeline(patterns, LinearDiscriminantAnalysis())


class TangentSpace(Covariances):
    """Riemannian tangent space and logistic regression (Barachant et al. 2012).

    Attributes
    ----------
    strength : float
        Inverse strength of the regularisation.
    """

    kind: Literal["tangent_space"]
    # Chosen on validation subjects of EEGMMIDB, with alignment: .683, .708, .679 for 0.01, 0.1, 1.
    strength: PositiveFloat = 0.1

    def classifier(self, _n_classes: int) -> Any:
        """Return the two in sequence."""
        from pyriemann.tangentspace import TangentSpace as Projection
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        return make_pipeline(Projection(), LogisticRegression(C=self.strength, max_iter=2000))


class Mdm(Covariances):
    """Minimum distance to the Riemannian mean of a class (Barachant et al. 2012)."""

    kind: Literal["mdm"]

    def classifier(self, _n_classes: int) -> Any:
        """Return it; the probabilities are a softmax of squared distances."""
        from pyriemann.classification import MDM

        return MDM()


class BandPower(ReaderConfig):
    """Log power of each channel in bands, Hz, and logistic regression or boosted trees.

    Attributes
    ----------
    strength : float
        Inverse strength of the regression's regularisation.
    """

    kind: Literal["band_power"]
    bands: Annotated[tuple[tuple[float, float], ...], Field(min_length=1)]
    classifier_kind: Annotated[Literal["logistic", "boosting"], Field(alias="classifier")] = "logistic"
    # Three folds of Subject00-23 of eegmat hardly tell: balanced .593, .615, .613 for 0.001, 0.01, 0.1.
    strength: PositiveFloat = 0.01

    def features(self, x: Windows, sfreq: float) -> Features:
        """Return the log powers, (n, C * n_bands)."""
        from offline.probe.features import band_powers

        return band_powers(x, sfreq, self.bands).astype(np.float64)

    def classifier(self, _n_classes: int) -> Any:
        """Return it; classes weigh alike."""
        if self.classifier_kind == "boosting":
            from sklearn.ensemble import HistGradientBoostingClassifier

            return HistGradientBoostingClassifier(class_weight="balanced", random_state=0)
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        regression = LogisticRegression(C=self.strength, max_iter=2000, class_weight="balanced")
        return make_pipeline(StandardScaler(), regression)


class Discriminant(ReaderConfig, ABC):
    """Features in time, and linear discriminant analysis with shrinkage; classes weigh alike."""

    def classifier(self, n_classes: int) -> Any:
        """Return it."""
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        even = np.full(n_classes, 1 / n_classes)
        discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=even)
        return make_pipeline(StandardScaler(), discriminant)


class HudginsLda(Discriminant):
    """Mean absolute value, zero crossings, slope sign changes, waveform length; LDA (Hudgins et al. 1993).

    Attributes
    ----------
    threshold : float
        What crossings and changes of slope must exceed, in the unit behind the DSP list: noise has many.
    """

    kind: Literal["hudgins_lda"]
    threshold: Annotated[float, Field(ge=0)] = 0.0

    def features(self, x: Windows, _sfreq: float) -> Features:
        """Return the four of each channel, (n, 4 C): counts as shares of the samples."""
        wide = x.astype(np.float64)
        steps = np.diff(wide, axis=-1)
        crossings = (wide[..., 1:] * wide[..., :-1] < 0) & (np.abs(steps) > self.threshold)
        before, after = steps[..., :-1], steps[..., 1:]
        larger = np.maximum(np.abs(before), np.abs(after)) > self.threshold
        turns = (before * after < 0) & larger
        each = [np.abs(wide), crossings, turns, np.abs(steps)]
        return np.concatenate([one.mean(axis=-1) for one in each], axis=-1)


class LogRmsLda(Discriminant):
    """Log root mean square, log waveform length, zero crossings; LDA."""

    kind: Literal["log_rms_lda"]

    def features(self, x: Windows, _sfreq: float) -> Features:
        """Return the three of each channel, (n, 3 C)."""
        from offline.probe.features import time_domain

        return time_domain(x).astype(np.float64)


Reader = Annotated[
    CspLda | TangentSpace | Mdm | BandPower | HudginsLda | LogRmsLda, Field(discriminator="kind")
]
