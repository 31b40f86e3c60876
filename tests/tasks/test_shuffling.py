import numpy as np
import pytest

from ide_transformer import InputError
from ide_transformer.tasks import shuffled


MASK = 2**64 - 1


def one(place, number, seed, epoch):
    """The network on a single integer of Python, written down again."""
    half = max(1, ((number - 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(8, np.uint64).tolist()
    while True:
        left, right = divmod(place, 2**half)
        for key in keys:
            x = (right + key) & MASK
            x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
            left, right = right, left ^ ((x ^ (x >> 31)) % 2**half)
        place = left * 2**half + right
        if place < number:
            return place


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 16, 17, 255, 257, 1000, 4097])
def test_every_sample_has_one_place(number):
    for seed, epoch in ((0, 0), (0, 1), (2**32 - 1, 7)):
        order = shuffled(np.arange(number), number, seed, epoch)
        assert (np.sort(order) == np.arange(number)).all()
        places = range(0, number, max(1, number // 5))
        assert [order[i] for i in places] == [one(i, number, seed, epoch) for i in places]


def test_an_order_of_more_samples_than_memory_holds():
    places = np.array([0, 1, 2**40, 2**50 - 1])
    found = shuffled(places, 2**50, 3, 5)
    assert found.tolist() == [one(i, 2**50, 3, 5) for i in places.tolist()]
    again = shuffled(places[::-1].reshape(2, 2), 2**50, 3, 5)
    assert (again.ravel()[::-1] == found).all()


def test_orders_look_random():
    number = 1000
    orders = np.stack(
        [shuffled(np.arange(number), number, s, e) for s in range(8) for e in range(8)]
    )
    correlations = np.corrcoef(np.vstack([np.arange(number), orders]))
    # Of independent orders it has a standard deviation of 1/√1000 = 0.032.
    assert np.abs(correlations - np.eye(65)).max() < 5 * 0.032
    # The first sample is anywhere: 64 draws in 8 bins have 8 ± 2.6 each.
    assert np.histogram(orders[:, 0], 8, (0, number))[0].max() < 8 + 5 * 2.6


def test_no_samples():
    with pytest.raises(InputError, match="number=0"):
        shuffled(np.arange(3), 0, 0, 0)


def test_places_that_are_none():
    with pytest.raises(InputError, match="places from 0 to 3 of 3 samples; give them from 0"):
        shuffled(np.arange(4), 3, 0, 0)
