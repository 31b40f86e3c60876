"""The next batches of a run, prepared while the device works on those before."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar


T = TypeVar("T")


@contextlib.contextmanager
def prefetched(
    make: Callable[[int], T], start: int, stop: int, *, ahead: int = 2
) -> Iterator[Iterator[T]]:
    """`make(start), make(start + 1), …, make(stop - 1)`, made by a thread at most `ahead` of
    them before they are asked for. What it makes is a function of the number alone, so that the
    order is the only thing that matters. An error is raised where its value is asked for.

        with prefetched(lambda step: task.batch(step, size, seed), start, steps) as batches:
            for batch in batches: …

    **Arguments:**

    - `ahead`: how many values are kept, besides the one that is in use.
    """
    thread = ThreadPoolExecutor(1, "prefetch")
    waiting: deque[Future[T]] = deque()
    numbers = iter(range(start, stop))

    def ask(count: int) -> None:
        for number in itertools.islice(numbers, count):
            waiting.append(thread.submit(make, number))

    def values() -> Iterator[T]:
        ask(ahead)
        while waiting:
            value = waiting.popleft().result()
            ask(1)
            yield value

    try:
        yield values()
    finally:
        thread.shutdown(cancel_futures=True)
