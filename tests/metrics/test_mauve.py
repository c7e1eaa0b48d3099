"""The area under a divergence frontier: 1 for one distribution, 0 for disjoint ones, and symmetric."""

import numpy as np
import pytest

from jtextdiff.metrics.mauve import frontier_area


def cloud(shift: float, seed: int, num: int = 600) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, 4)) + shift * np.asarray([1.0, 0.0, 0.0, 0.0])


def test_one_distribution_is_near_one_and_disjoint_ones_near_zero() -> None:
    assert frontier_area(cloud(0, 1), cloud(0, 2)) > 0.9
    assert frontier_area(cloud(0, 1), cloud(30, 2)) < 0.05
    assert frontier_area(cloud(0, 1), cloud(0, 1)) == pytest.approx(1.0, abs=1e-6)


def test_it_falls_with_the_distance_and_is_symmetric() -> None:
    areas = [frontier_area(cloud(0, 1), cloud(shift, 2)) for shift in (0.0, 1.0, 2.0, 4.0)]
    assert areas == sorted(areas, reverse=True)
    assert frontier_area(cloud(2, 2), cloud(0, 1)) == pytest.approx(areas[2], abs=0.1)


def test_a_set_that_has_collapsed_is_far() -> None:
    assert frontier_area(np.repeat(cloud(0, 1)[:1], 600, axis=0), cloud(0, 2)) < 0.1


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        frontier_area(cloud(0, 1, 10), cloud(0, 2))
