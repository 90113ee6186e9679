"""A loop over cases runs all of them, and says in which one it failed."""

import pytest

from tests.support.each import each


def test_every_combination_runs_once():
    seen = []

    @each("a", [1, 2])
    @each("b, c", [(3, 4), (5, 6)])
    def body(a, b, c):
        seen.append((a, b, c))

    body()
    assert seen == [(1, 3, 4), (1, 5, 6), (2, 3, 4), (2, 5, 6)]


@each("number", [1, 2])
def test_fixtures_come_beside_the_cases(number, tmp_path):
    (tmp_path / str(number)).mkdir()
    assert len(list(tmp_path.iterdir())) == number


def test_a_failure_names_its_case():
    @each("shape", [(3,), (4,)])
    @each("labels", [2, 5])
    def body(shape, labels):
        assert (shape, labels) != ((4,), 5), "differs"

    with pytest.raises(AssertionError, match=r"with shape = \(4,\): with labels = 5: differs"):
        body()


def test_an_error_that_does_not_come_names_its_case():
    @each("bad", [0, 1])
    def body(bad):
        with pytest.raises(ZeroDivisionError):
            _ = 1 // bad

    with pytest.raises(AssertionError, match=r"with bad = 1: DID NOT RAISE"):
        body()


def test_a_skip_is_a_skip():
    @each("case", [0])
    def body(case):
        pytest.skip("not here")

    with pytest.raises(pytest.skip.Exception):
        body()
