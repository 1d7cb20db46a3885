from collections.abc import Iterator
from threading import Barrier, Thread, get_ident

import pytest
import torch

from semires.stages.cache_sam.threads import BatchThreads


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
@pytest.mark.parametrize(("enabled", "num_threads"), [(True, 1), (False, 2)])
def test_map__only_item_that_is_small(enabled: bool, num_threads: int) -> None:
    threads = BatchThreads(enabled=enabled)
    assert threads.map(lambda item: torch.get_num_threads(), [0], small=True) == [num_threads]
    assert torch.get_num_threads() == 2
