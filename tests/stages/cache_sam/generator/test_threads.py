from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread, get_ident
from threading import enumerate as enumerate_threads
from time import sleep
from typing import Any

import pytest
import torch

from semires.stages.cache_sam.generator.threads import BatchThreads


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_map__side_by_side_in_order() -> None:
    both = Barrier(2, timeout=10)  # breaks where one waits alone

    def square(item: int) -> tuple[int, int, bool, int]:
        both.wait()
        return item**2, torch.get_num_threads(), torch.is_inference_mode_enabled(), get_ident()

    threads = BatchThreads(enabled=True)
    answers = [threads.map(square, range(6)) for _ in range(2)]
    for squares, num_threads, modes, _ in (zip(*answer, strict=True) for answer in answers):
        assert squares == (0, 1, 4, 9, 16, 25)
        assert set(num_threads) == {1}
        assert all(modes)
    who = {answer[-1] for answer in answers[0] + answers[1]}
    assert len(who) == 2
    assert get_ident() not in who


@pytest.mark.usefixtures("two_threads")
def test_map__leaves_torchs_threads_alone() -> None:
    BatchThreads(enabled=True).map(str, range(3))
    seen = []
    other = Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert (torch.get_num_threads(), seen) == (2, [2])
    assert not torch.is_inference_mode_enabled()


@pytest.mark.usefixtures("two_threads")
def test_map__first_error_is_raised() -> None:
    def refuse_two(item: int) -> int:
        if item == 2:
            raise torch.OutOfMemoryError("no memory")
        return item

    threads = BatchThreads(enabled=True)
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        threads.map(refuse_two, range(5))
    assert threads.map(refuse_two, [0, 1]) == [0, 1]


@pytest.mark.usefixtures("two_threads")
def test_map__follows_the_number_of_threads() -> None:
    threads = BatchThreads(enabled=True)
    threads.map(str, range(3))
    torch.set_num_threads(3)
    together = Barrier(3, timeout=10)
    threads.map(lambda item: together.wait(), range(3))
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("enabled", "num_items"), [(False, 4), (True, 1), (True, 0)])
def test_map__in_the_calling_thread(enabled: bool, num_items: int) -> None:
    threads = BatchThreads(enabled=enabled)
    assert threads.side_by_side(num_items) == 1
    seen = threads.map(lambda item: (get_ident(), torch.is_inference_mode_enabled()), range(num_items))
    assert seen == [(get_ident(), True)] * num_items


@pytest.mark.usefixtures("two_threads")
def test_map__inside_of_map_in_the_same_thread() -> None:
    threads = BatchThreads(enabled=True)
    seen = threads.map(lambda item: (get_ident(), threads.map(lambda inner: get_ident(), range(3))), range(2))
    assert all(inner == [outer] * 3 for outer, inner in seen)


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("interrupted_at", [0, 1, 2, 30])
def test_map__interrupted_while_handing_out(monkeypatch: pytest.MonkeyPatch, interrupted_at: int) -> None:
    """The first two calls start the threads; nothing may wait for ever, and what has not begun never does."""
    submit, count, ran = ThreadPoolExecutor.submit, iter(range(1000)), []

    def submit_some(self: ThreadPoolExecutor, *args: Any, **kwargs: Any) -> Any:
        if next(count) == interrupted_at:
            raise Interrupted
        return submit(self, *args, **kwargs)

    def work(item: int) -> None:
        ran.append(item)
        sleep(0.02)

    threads = BatchThreads(enabled=True)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit_some)
    with pytest.raises(Interrupted):
        threads.map(work, range(100))
    monkeypatch.undo()
    assert torch.get_num_threads() == 2
    for thread in enumerate_threads():
        if thread.name.startswith("candidates"):
            thread.join(timeout=10)
            assert not thread.is_alive()
    assert len(ran) < 10
    assert threads.map(str, range(3)) == ["0", "1", "2"]
