"""The estimates, on numbers that can be checked by hand and on Michelson's."""

import pytest

from light.data import KM_PER_S
from light.estimate import mean, standard_error


def test_by_hand():
    assert mean([1, 2, 6]) == 3
    assert standard_error([2, 4, 6]) == pytest.approx(2 / 3**0.5)


def test_michelson():
    assert mean(KM_PER_S) == 299_909
    assert standard_error(KM_PER_S) == pytest.approx(23.46, abs=0.01)
