"""MAUVE: the area under the divergence frontier of two sets of texts."""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.integrate import trapezoid

SCALE = 5.0
"""c of the paper: it only spreads the values."""

VARIANCE_SHARE = 0.9
"""Share of the features' variance that the retained principal directions hold."""


def frontier_area(texts: NDArray[np.floating], reference: NDArray[np.floating], *, seed: int = 0) -> float:
    """Returns 1 for sets of features [n, d] that cannot be distinguished, near 0 for sets that share nothing.

    Pillutla et al. (2021), MAUVE: both sets are quantised to the same clusters, one for each ten texts. The result is
    the area under {exp(−c KL(q ‖ r)), exp(−c KL(p ‖ r))} for mixtures r of the two distributions p and q. It is not
    comparable across judges or numbers of texts. Raises ValueError for fewer than 20 texts in either set.
    """
    if min(len(texts), len(reference)) < 20:
        raise ValueError(f"a divergence needs at least 20 texts of each kind, got {len(texts)} and {len(reference)}")
    points = _principal_components(np.concatenate([texts, reference]).astype(np.float64))
    num = max(2, min(len(texts), len(reference)) // 10)
    start = points[np.random.default_rng(seed).choice(len(points), num, replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster does no harm
        _, labels = kmeans2(points, start, minit="matrix", iter=50)
    p, q = (np.bincount(part, minlength=num) / len(part) for part in (labels[: len(texts)], labels[len(texts) :]))
    weight = np.linspace(1e-6, 1 - 1e-6, 101)[:, None]
    r = weight * p + (1 - weight) * q
    x, y = (np.exp(-SCALE * _kl(distribution, r)) for distribution in (q, p))
    x, y = np.concatenate([[0.0], x, [1.0]]), np.concatenate([[1.0], y, [0.0]])
    order = np.lexsort((-y, x))
    return float(trapezoid(y[order], x[order]))


def _principal_components(points: np.ndarray) -> np.ndarray:
    """Coordinates of points in the fewest principal directions that hold VARIANCE_SHARE of their variance."""
    centred = points - points.mean(axis=0)
    coordinates, singular, _ = np.linalg.svd(centred, full_matrices=False)
    explained = np.cumsum(singular**2) / max(np.sum(singular**2), 1e-12)
    num = int(np.searchsorted(explained, VARIANCE_SHARE)) + 1
    return coordinates[:, :num] * singular[:num]


def _kl(p: np.ndarray, mixtures: np.ndarray) -> np.ndarray:
    """KL(p ‖ each mixture), nats."""
    log_ratio = np.log(np.where(p > 0, p, 1.0) / np.maximum(mixtures, 1e-300))
    return np.sum(np.where(p > 0, p * log_ratio, 0.0), axis=1)
