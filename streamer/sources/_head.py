"""What a current dipole in the brain makes at electrodes on the scalp: a head of concentric spheres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Outer radii over the scalp's, and conductivities over the brain's, of brain, skull and scalp.  Radii as in
# Rush & Driscoll 1968; a skull of 1/25, as measured since, not their 1/80.
RADII = (0.87, 0.92, 1.0)
CONDUCTIVITIES = (1.0, 0.04, 1.0)
N_TERMS = 60  # at a depth of 0.85 of the radius the next term is 0.85 ** 60 = 6e-5


def lead_field(
    electrodes: Array,
    places: Array,
    moments: Array,
    radii: tuple[float, ...] = RADII,
    conductivities: tuple[float, ...] = CONDUCTIVITIES,
) -> Array:
    """Return the potential at each electrode from each dipole, in arbitrary units.

    The Legendre series of a dipole in a sphere of shells (de Munck 1988, doi:10.1063/1.340090; Zhang 1995,
    doi:10.1088/0031-9155/40/3/001): the field that the dipole would have in an infinite medium, expanded in
    spherical harmonics, times the gain of each degree from the innermost shell to the surface.

    Parameters
    ----------
    electrodes : ndarray, shape (n_chans, 3)
        Unit vectors.
    places, moments : ndarray, shape (n_dipoles, 3)
        Places inside the innermost shell, in radii of the head, none at the centre.
    radii, conductivities : tuple of float
        Of the shells, from the inside out; the last radius is 1.

    Returns
    -------
    ndarray, shape (n_chans, n_dipoles), float64
    """
    depth = np.linalg.norm(places, axis=1)
    out = places / depth[:, None]
    cosine = electrodes @ out.T  # (n_chans, n_dipoles)
    radial = np.sum(moments * out, axis=1)
    tangential = electrodes @ moments.T - cosine * radial
    before, legendre = np.ones_like(cosine), cosine  # P(n-1), P(n)
    slope = np.ones_like(cosine)  # P'(n)
    potential = np.zeros_like(cosine)
    for n, gain in enumerate(_gains(radii, conductivities), start=1):
        potential += gain * depth ** (n - 1) * (n * radial * legendre + tangential * slope)
        slope = cosine * slope + (n + 1) * legendre
        before, legendre = legendre, ((2 * n + 1) * cosine * legendre - n * before) / (n + 1)
    return np.asarray(potential)


def _gains(radii: tuple[float, ...], conductivities: tuple[float, ...]) -> list[float]:
    """Return for each degree the potential at the surface of a source of 1 in an infinite medium."""
    gains = []
    for n in range(1, N_TERMS + 1):
        # Each mode is a * r**n + b * r**-(n+1).  Inside, b = 1 is the source and a its answer, yet unknown:
        # carry both columns outwards, then choose a so that no current leaves the head.
        modes = np.eye(2)
        for radius, inner, outer in zip(radii, conductivities, conductivities[1:], strict=False):
            modes = _cross(n, radius, inner / outer) @ modes
        answer, source = modes.T
        flow = np.array([n, -(n + 1)])
        a = -(flow @ source) / (flow @ answer)
        gains.append(float((source + a * answer).sum()))
    return gains


def _cross(n: int, radius: float, ratio: float) -> Array:
    """Return how (a, b) of degree n change where the conductivity falls by ``ratio``.

    Potential and current are continuous: solved for the outer (a, b).
    """
    inverse = radius ** -(2 * n + 1)
    return np.array(
        [
            [(n + 1) + ratio * n, (n + 1) * (1 - ratio) * inverse],
            [n * (1 - ratio) / inverse, n + ratio * (n + 1)],
        ]
    ) / (2 * n + 1)
