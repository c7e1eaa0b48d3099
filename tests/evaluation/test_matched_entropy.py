"""The temperature of a wanted entropy is found where there is one, in few sets of samples."""

import math

import pytest

from jtextdiff.evaluation.matched_entropy import LEAST, MAX_SETS, MOST, TOLERANCE, matching_temperature


def entropy_at(temperature: float) -> float:
    """As of a distribution that becomes uniform over 100 words."""
    return math.log(100) * (1 - math.exp(-1.5 * temperature))


@pytest.mark.parametrize("wanted", [2.0, 3.0, 3.575, 4.2, 4.5])
def test_it_is_found_above_below_and_at_the_start(wanted: float) -> None:
    tried = []
    found = matching_temperature(lambda t: tried.append(t) or entropy_at(t), wanted, 1.0, entropy_at(1.0))
    assert entropy_at(found) == pytest.approx(wanted, abs=TOLERANCE) and len(tried) < MAX_SETS
    assert found in tried or not tried


@pytest.mark.parametrize(("start", "wanted"), [(0.1, 1.5), (8.0, 4.5), (1.0, entropy_at(4.9))])
def test_it_is_searched_for_between_the_least_and_the_most(start: float, wanted: float) -> None:
    tried = []
    found = matching_temperature(lambda t: tried.append(t) or entropy_at(t), wanted, start, entropy_at(start))
    assert entropy_at(found) == pytest.approx(wanted, abs=TOLERANCE) and 0 < len(tried) < MAX_SETS
    assert all(LEAST <= temperature <= MOST for temperature in tried)


def test_without_one_the_nearest_that_was_tried_is_returned() -> None:
    tried = []
    found = matching_temperature(lambda t: tried.append(t) or min(entropy_at(t), 3.0), 4.0, 1.0, 3.0)
    assert found == 1.0 and 0 < len(tried) < MAX_SETS
