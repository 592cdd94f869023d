"""Series of brain regions from images of fMRI, by nilearn."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.data import array_file
from streamer.errors import MissingDependency, RecordingError

SUFFIXES = (".nii", ".nii.gz")
PER_SECOND = {"msec": 1e-3, "usec": 1e-6}  # units of time of a header; anything else is seconds


def read_regions(path: Path, atlas: Path | None) -> tuple[NDArray[Any], float | None]:
    """Return the mean over each region's voxels, by the region's number, and the rate of the header.

    Parameters
    ----------
    atlas : Path or None
        Image with a number per region, in the same space.

    Returns
    -------
    data : ndarray, shape (n_volumes, n_regions)
    tr_s : float or None
        Seconds per volume, where the header tells.

    Raises
    ------
    RecordingError
        There is no atlas, or one of the images is not there, is damaged, or does not fit the other.
    MissingDependency
        nilearn is not installed.
    """
    try:
        import nibabel
        from nilearn.maskers import NiftiLabelsMasker
    except ImportError as error:
        raise MissingDependency(
            f"{path} is NIfTI, which nilearn reads, not installed here: pip install 'bcistream[fmri]'"
        ) from error
    if atlas is None:
        raise RecordingError(f"{path} is an image: name the image of its regions as `atlas`.")

    def extract() -> tuple[NDArray[Any], float | None]:
        image: Any = nibabel.load(path)
        regions: Any = nibabel.load(atlas)
        if len(image.shape) != 4:
            raise ValueError(f"an image of shape {image.shape}; expected x, y, z and volumes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of nilearn's own making; what matters is checked below
            masker = NiftiLabelsMasker(regions, standardize=None, keep_masked_labels=False)
            data = masker.fit_transform(image)
        n_regions = len(np.setdiff1d(np.unique(np.asarray(regions.dataobj)), [0]))
        if data.shape[1] != n_regions:
            raise ValueError(
                f"only {data.shape[1]} of the {n_regions} regions of {atlas.name} have a voxel of it: are "
                "both in the same space?"
            )
        unit = PER_SECOND.get(image.header.get_xyzt_units()[1], 1.0)
        return data, float(image.header.get_zooms()[3]) * unit or None

    if not atlas.is_file():
        raise RecordingError(f"No atlas {atlas}: expected a NIfTI image with a number per region.")
    return array_file.damaged_is_said(path, extract)
