"""Images and batches of prompts side by side on CPU: threads of Python in place of torch's own.

The operators of one batch take tenths of a millisecond, and torch's threads meet at the end of each: two cores gain
little over one, and wait for each other where other processes want them too. Here a core has an image to itself while
it is encoded, then a batch of prompts from its tokens to packed masks.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

_A = TypeVar("_A")
_B = TypeVar("_B")


class BatchThreads:
    """Maps in as many threads as torch has in the calling one, each with one thread of torch's; or, not `enabled`, in
    the calling thread.

    The threads stay for the next call (what MKL keeps for a thread it keeps for good) and end with this object.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._pool: ThreadPoolExecutor | None = None
        self._num_threads = 0

    def side_by_side(self, num_items: int) -> int:
        """How many of so many items are worked on at a time, 1 or more."""
        return max(1, min(num_items, torch.get_num_threads())) if self.enabled else 1

    def map(self, function: Callable[[_A], _B], items: Sequence[_A], *, small: bool = False) -> list[_B]:
        """What `function` makes of each item under inference_mode, in their order; the first error is raised.

        An only item has all threads of torch's, unless it is too `small` for more than one. Other modes of torch that
        belong to a thread, such as autocast, are not the caller's in `function`.
        """
        is_split = self.side_by_side(len(items)) == 1 and not small
        if is_split or not self.enabled or torch.get_num_threads() == 1:
            with torch.inference_mode():
                return [function(item) for item in items]

        def infer(item: _A) -> _B:
            with torch.inference_mode():
                return function(item)

        # After an error, or an interrupt, map takes back what has not begun.
        return list(self._started().map(infer, items))

    def _started(self) -> ThreadPoolExecutor:
        num_threads = torch.get_num_threads()
        if self._pool is None or self._num_threads != num_threads:
            self._pool, self._num_threads = ThreadPoolExecutor(num_threads, thread_name_prefix="prompts"), num_threads
            together = Barrier(num_threads)
            list(self._pool.map(_take_one_thread, [together] * num_threads))
            # set_num_threads is for the thread that calls, but also for all that torch first sees later: put it back.
            torch.set_num_threads(num_threads)
        return self._pool


def _take_one_thread(together: Barrier) -> None:
    together.wait()  # no thread of the pool takes two of these calls
    torch.get_num_threads()  # sets the number that a new thread begins with, which would otherwise come later
    torch.set_num_threads(1)
