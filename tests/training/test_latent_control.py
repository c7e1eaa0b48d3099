"""Calibration of fitted controls."""

import numpy as np
import pytest

from jtextdiff.methods.components.cross_validation import calibration_error


def test_calibration_error_compares_confidence_with_accuracy() -> None:
    confidence = np.asarray([0.95] * 100 + [0.55] * 100)
    assert calibration_error(confidence, np.asarray([1] * 95 + [0] * 5 + [1] * 55 + [0] * 45)) == pytest.approx(
        0, abs=1e-9
    )
    assert calibration_error(confidence, np.ones(200)) == pytest.approx((0.05 + 0.45) / 2)
