import threading
import time
from collections.abc import Callable

import pytest
import torch.distributed as dist

from semires.stages.cache_sam import workers
from semires.stages.cache_sam.workers import WorkerGroup
from semires.stages.data.errors import InputError


@pytest.fixture(autouse=True)
def _no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def pair(patience: float = 60.0) -> tuple[WorkerGroup, WorkerGroup]:
    store = dist.HashStore()
    return WorkerGroup(store, 0, 2, patience=patience), WorkerGroup(store, 1, 2, patience=patience)


def in_thread(action: Callable[[], object]) -> Callable[[], object]:
    """Start `action` in a thread; returns a function that waits for its result."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(action()))
    thread.start()

    def wait() -> object:
        thread.join(20)
        return results[0]

    return wait


def test_positions__each_falls_to_one_worker() -> None:
    first, second = pair()
    one, two = first.positions(0, 5), second.positions(0, 5)
    assert [next(one), next(two), next(two), next(one), next(two)] == [0, 1, 2, 3, 4]
    assert list(one) == list(two) == []
    # Rounds and counters of other names are counts of their own.
    assert next(first.positions(1, 5)) == 0
    assert first.count("done", 3) == second.count("done", 0) == 3


def test_positions__a_worker_started_again_goes_on() -> None:
    store = dist.HashStore()
    taken = WorkerGroup(store, 0, 1).positions(0, 4)
    assert [next(taken), next(taken)] == [0, 1]
    assert list(WorkerGroup(store, 0, 1).positions(0, 4)) == [2, 3]


def test_finish__alone() -> None:
    group = WorkerGroup.alone()
    assert list(group.positions(0, 3)) == [0, 1, 2]
    group.settle(0, 3)
    assert group.finish(0, 3)
    assert WorkerGroup.alone().finish(0, 0)


def test_finish__waits_for_the_straggler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    fast, slow = pair()
    fast.settle(0, 3)
    shown: list[int] = []
    waiting = in_thread(lambda: fast.finish(0, 4, lambda: shown.append(1)))
    time.sleep(0.1)
    assert shown
    slow.settle(0, 1)
    assert slow.finish(0, 4)
    assert waiting()


def test_finish__some_were_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    first, second = pair()
    first.settle(0, 2)
    waiting = in_thread(lambda: first.finish(0, 4))
    # The second was killed with two positions, and starts again: none is left for it.
    second.begin(0)
    assert second.finish(0, 4) is False
    assert waiting() is False
    # In the next round everything is settled.
    first.settle(1, 3)
    second.settle(1, 1)
    waiting = in_thread(lambda: first.finish(1, 4))
    assert second.finish(1, 4)
    assert waiting()


def test_begin__takes_back_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    first, second = pair(patience=0.2)
    second.settle(0, 1)
    in_thread(lambda: second.finish(0, 4))()
    second.begin(0)
    began = time.monotonic()
    # Not before its patience ends: the second is at work again.
    assert first.finish(0, 4) is False
    assert time.monotonic() - began >= 0.2


def test_finish__patience_begins_anew_with_every_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    first, second = pair(patience=0.5)
    waiting = in_thread(lambda: first.finish(0, 4))
    for _ in range(8):
        time.sleep(0.1)
        second.count("done")
    second.settle(0, 4)
    assert waiting()


def test_lead__rank_0_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    first, second = pair()
    order: list[str] = []
    waiting = in_thread(lambda: (second.lead(), order.append("second")))
    assert first.lead()
    order.append("first")
    first.follow()
    assert waiting() == (False, None)
    assert order == ["first", "second"]
    assert not second.lead()


def test_lead__rank_0_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    _, second = pair(patience=0.1)
    with pytest.raises(InputError, match="expected rank 0 to open the store"):
        second.lead()


def test_leave__nobody_before_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    first, second = pair()
    order: list[str] = []
    waiting = in_thread(lambda: (second.leave(), order.append("second")))
    time.sleep(0.1)
    order.append("first")
    first.leave()
    waiting()
    assert order == ["first", "second"]
    WorkerGroup.alone().leave()


def test_leave__does_not_wait_for_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    monkeypatch.setattr(workers, "_FAREWELL", 0.1)
    for rank in (0, 1):
        group = pair()[rank]
        began = time.monotonic()
        group.leave()
        assert 0.1 <= time.monotonic() - began < 10


def test_join__alone_without_torchrun() -> None:
    group = WorkerGroup.join()
    assert (group.rank, group.world_size, group.reports) == (0, 1, True)


def test_join__half_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="found no MASTER_ADDR, MASTER_PORT; use torchrun"):
        WorkerGroup.join()


def test_join__the_store_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    variables = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    group = WorkerGroup.join()
    assert (group.rank, group.world_size, group.reports) == (1, 2, False)
    assert group.count("done", 2) == WorkerGroup(server, 0, 2).count("done", 0) == 2
    group.settle(0, 1)
    assert group.finish(0, 1)


def test_count__the_store_is_gone() -> None:
    class Gone:
        def add(self, name: str, number: int) -> int:
            raise dist.DistNetworkError("Broken pipe\nat some line of C++")

    group = WorkerGroup.alone()
    group._store = Gone()  # type: ignore[assignment]
    with pytest.raises(InputError, match="store, found: Broken pipe; what was finished is committed") as caught:
        group.count("done")
    assert "\n" not in str(caught.value)
    group.leave()  # nothing left to wait for


def test_has_failed__told_by_rank_0_to_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    monkeypatch.setattr(workers, "_FAREWELL", 0.1)
    store = dist.HashStore()
    WorkerGroup(store, 1, 2).leave(failed=True)
    WorkerGroup(store, 0, 2).leave()
    assert not WorkerGroup(store, 0, 2).has_failed()
    WorkerGroup(store, 0, 2).leave(failed=True)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert WorkerGroup(store, 1, 2).has_failed()


def test_leave__each_start_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    store = dist.HashStore()
    waiting = in_thread(WorkerGroup(store, 1, 2).leave)
    WorkerGroup(store, 0, 2).leave()
    waiting()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    order: list[str] = []
    second = WorkerGroup(store, 1, 2)
    waiting = in_thread(lambda: (second.leave(), order.append("second")))
    time.sleep(0.1)
    order.append("first")
    WorkerGroup(store, 0, 2).leave()
    waiting()
    assert order == ["first", "second"]
