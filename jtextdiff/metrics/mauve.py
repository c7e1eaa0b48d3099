"""How far two sets of texts lie apart, by what a judge makes of them: the area under their divergence frontier."""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.integrate import trapezoid

SCALE = 5.0
"""c of the paper: it only spreads the values."""

SHARE = 0.9
"""Of the variance of the features, what the directions that are kept hold."""


def frontier_area(texts: NDArray[np.floating], others: NDArray[np.floating], *, seed: int = 0) -> float:
    """1 for sets of features [n, d] that cannot be told apart, towards 0 for sets that share nothing.

    Pillutla et al. (2021), MAUVE: both sets are sorted into the same clusters, one for each ten texts, and the area
    under {exp(−c KL(q ‖ r)), exp(−c KL(p ‖ r))} for mixtures r of the two laws p and q is taken. It is not comparable
    across judges or numbers of texts. Raises ValueError for fewer than 20 texts of either.
    """
    if min(len(texts), len(others)) < 20:
        raise ValueError(f"a divergence needs at least 20 texts of each kind, got {len(texts)} and {len(others)}")
    points = _principal(np.concatenate([texts, others]).astype(np.float64))
    num = max(2, min(len(texts), len(others)) // 10)
    first = points[np.random.default_rng(seed).choice(len(points), num, replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster does no harm
        _, labels = kmeans2(points, first, minit="matrix", iter=50)
    p, q = (np.bincount(part, minlength=num) / len(part) for part in (labels[: len(texts)], labels[len(texts) :]))
    mix = np.linspace(1e-6, 1 - 1e-6, 101)[:, None]
    r = mix * p + (1 - mix) * q
    x, y = (np.exp(-SCALE * _kl(law, r)) for law in (q, p))
    x, y = np.concatenate([[0.0], x, [1.0]]), np.concatenate([[1.0], y, [0.0]])
    order = np.lexsort((-y, x))
    return float(trapezoid(y[order], x[order]))


def _principal(points: np.ndarray) -> np.ndarray:
    """Points in the directions that hold SHARE of their variance."""
    centred = points - points.mean(axis=0)
    left, weight, _ = np.linalg.svd(centred, full_matrices=False)
    held = np.cumsum(weight**2) / max(np.sum(weight**2), 1e-12)
    keep = int(np.searchsorted(held, SHARE)) + 1
    return left[:, :keep] * weight[:keep]


def _kl(law: np.ndarray, mixtures: np.ndarray) -> np.ndarray:
    """KL(law ‖ each mixture), nats."""
    return np.sum(
        np.where(law > 0, law * np.log(np.where(law > 0, law, 1.0) / np.maximum(mixtures, 1e-300)), 0.0), axis=1
    )
