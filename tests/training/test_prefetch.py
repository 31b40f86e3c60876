import threading

import pytest

from ide_transformer.training.run import prefetched


def test_values_are_made_ahead_and_in_order():
    made, ahead = [], threading.Semaphore(0)

    def make(number):
        made.append((number, threading.current_thread()))
        ahead.release()
        return number**2

    with prefetched(make, 3, 9, ahead=2) as values:
        assert not made
        assert next(values) == 9
        for _ in range(3):  # the one in use, and two more
            assert ahead.acquire(timeout=60)
        assert not ahead.acquire(timeout=0.05)
        assert list(values) == [16, 25, 36, 49, 64]
    assert [number for number, _ in made] == [3, 4, 5, 6, 7, 8]
    assert all(thread is not threading.main_thread() for _, thread in made)


def test_an_error_is_raised_where_its_value_is_asked_for():
    with prefetched(lambda n: 1 // (2 - n), 0, 5) as values:
        assert [next(values), next(values)] == [0, 1]
        with pytest.raises(ZeroDivisionError):
            next(values)


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    with prefetched(lambda n: n, 0, 10**9) as values:
        next(values)
    assert threading.active_count() == before
