"""Calibration of fitted controls."""

import numpy as np
import pytest

from jtextdiff.metrics.calibration import calibration_error


def test_calibration_error_compares_confidence_with_accuracy() -> None:
    confidence, ones = np.asarray([0.95] * 100 + [0.55] * 100), np.ones(200)
    correct = np.asarray([1.0] * 95 + [0.0] * 5 + [1.0] * 55 + [0.0] * 45)
    assert calibration_error(confidence, correct, ones) == pytest.approx(0, abs=1e-9)
    assert calibration_error(confidence, ones, ones) == pytest.approx((0.05 + 0.45) / 2)
    assert calibration_error(confidence, ones, np.asarray([3.0] * 100 + [1.0] * 100)) == pytest.approx(0.15)
