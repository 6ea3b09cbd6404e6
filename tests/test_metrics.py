import numpy as np
import pytest

from sourcesep.metrics import sdr


def test_sdr_of_a_tenth_of_an_error_is_20_db():
    stem = np.random.default_rng(0).standard_normal((1000, 2))
    assert sdr(stem, 1.1 * stem) == pytest.approx([20.0, 20.0], abs=1e-3)


def test_silence_scores_0_db_whatever_the_stem():
    stem = np.random.default_rng(0).standard_normal((1000, 2))
    assert sdr(stem, np.zeros_like(stem)) == pytest.approx([0.0, 0.0], abs=1e-6)
    assert sdr(np.zeros_like(stem), np.zeros_like(stem)) == pytest.approx([0.0, 0.0], abs=1e-6)
