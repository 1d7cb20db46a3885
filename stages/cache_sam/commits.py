"""Candidates written to the store in a thread, so that the device does not wait for compression and the disk."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from semires.cache.candidates import Candidates
from semires.cache.files import FileRecord
from semires.cache.writer import StoreWriter

# What may wait for the thread, in bytes of packed masks: about as much as one part, which it may just be writing.
MAX_WAITING_BYTES = 64 * 2**20


class CommitThread:
    """Hands images to `writer` in a thread of its own; meanwhile nobody else may use the writer.

    After each commit `on_settled(images)` is called in that thread with how many images have come to rest, in a part or
    on the list of those set aside. An error of the writer is raised by one of the next calls, at the latest by `close`.
    """

    def __init__(self, writer: StoreWriter, on_settled: Callable[[int], object]) -> None:
        self._writer = writer
        self._on_settled = on_settled
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._waiting_bytes = 0
        self._images = 0

    def add(self, candidates: Candidates, file: FileRecord | None = None) -> None:
        """Queue the candidates of one image, made of `file`; waits while `MAX_WAITING_BYTES` are queued."""
        num_bytes = candidates.bits.nbytes
        while self._waiting and (self._waiting[0][0].done() or self._waiting_bytes + num_bytes > MAX_WAITING_BYTES):
            self._take()
        self._submit(lambda: self._writer.add(candidates, file), images=1, num_bytes=num_bytes)

    def set_aside(self, image_id: int, reason: str) -> None:
        """Queue the entry of an image that cannot be decoded; it counts as settled with the next commit."""
        self._submit(lambda: self._writer.set_aside(image_id, reason), images=1)

    def flush(self) -> None:
        """Wait until everything queued is committed."""
        self._submit(self._writer.commit)
        while self._waiting:
            self._take()

    def close(self) -> None:
        """Commit what is queued and end the thread."""
        try:
            self.flush()
        finally:
            self._executor.shutdown()

    def _submit(self, action: Callable[[], None], *, images: int = 0, num_bytes: int = 0) -> None:
        future = self._executor.submit(self._act, action, images)
        self._waiting.append((future, num_bytes))
        self._waiting_bytes += num_bytes

    def _take(self) -> None:
        future, num_bytes = self._waiting[0]
        future.result()
        self._waiting.popleft()
        self._waiting_bytes -= num_bytes

    def _act(self, action: Callable[[], None], images: int) -> None:
        self._images += images
        action()
        if self._images and self._writer.num_uncommitted == 0:
            settled, self._images = self._images, 0
            self._on_settled(settled)
