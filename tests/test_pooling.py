"""Maximum and mean of windows on arrays of every kind; test_exactness.py has the many sizes."""

import numpy as np

from cyconv import naive
from tests import reference
from tests.reference import POOLINGS, assert_same, pool_by_definition, pool_everything


def test_the_naive_loops_are_the_definition():
    rng = np.random.default_rng(7)
    for _ in range(1000):
        case = reference.random_pool(rng)
        given = reference.pool_arrays(case, rng)
        results, expected = pool_everything(naive, case, *given), pool_by_definition(case, *given)
        assert_same(results, expected, case, names=POOLINGS)
