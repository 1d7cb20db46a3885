"""Images, or one image's batches of prompts, side by side on CPU: threads of Python in place of torch's own.

The operators of one batch take tenths of a millisecond, and torch's threads meet at the end of each: two cores gain
little over one, and wait for each other where other processes want them too. Here a core has a small SAM's image to
itself from its pixels to its packed masks, or a batch of prompts where one image is all there is to do.
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
        self._enabled = enabled
        self._pool: ThreadPoolExecutor | None = None
        self._num_threads = 0

    def side_by_side(self, num_items: int) -> int:
        """How many of so many items are worked on at a time, 1 or more; 1 inside of `map`."""
        return max(1, min(num_items, torch.get_num_threads())) if self._enabled else 1

    def map(self, function: Callable[[_A], _B], items: Sequence[_A]) -> list[_B]:
        """What `function` makes of each item under inference_mode, in their order; the first error is raised.

        After an error, or an interrupt, what has begun is finished in the background and nothing else is begun. Other
        modes of torch that belong to a thread, such as autocast, are not the caller's in `function`.
        """

        def infer(item: _A) -> _B:
            with torch.inference_mode():
                return function(item)

        if self.side_by_side(len(items)) == 1:
            return list(map(infer, items))
        pool = self._started()
        try:
            return list(pool.map(infer, items))
        except BaseException:
            # The pool's own map takes nothing back while it is still handing out.
            pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
            raise

    def _started(self) -> ThreadPoolExecutor:
        num_threads = torch.get_num_threads()
        if self._pool is None or self._num_threads != num_threads:
            pool = ThreadPoolExecutor(num_threads, thread_name_prefix="candidates")
            together = Barrier(num_threads)
            try:
                list(pool.map(_take_one_thread, [together] * num_threads))
            except BaseException:
                together.abort()  # a thread that waits for one that never comes would keep the process from ending
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            finally:
                # set_num_threads is for the thread that calls, but also for all that torch first sees later.
                torch.set_num_threads(num_threads)
            self._pool, self._num_threads = pool, num_threads
        return self._pool


def _take_one_thread(together: Barrier) -> None:
    together.wait()  # no thread of the pool takes two of these calls
    torch.get_num_threads()  # sets the number that a new thread begins with, which would otherwise come later
    torch.set_num_threads(1)
