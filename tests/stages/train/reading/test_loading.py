import gc
import multiprocessing
import os
import resource
import signal
import subprocess
import time
from collections import namedtuple
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from semires.cache.errors import StoreError
from semires.cache.views import CandidateView
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.reading import loading as loading_module
from semires.stages.train.reading.loading import Loader, choose_num_workers, load_batches
from semires.stages.train.reading.samples import Batch, RefSamples, collate
from semires.stages.train.reading.sampling import every_expression

# On a machine of one core, and from Python 3.12 on.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
SIZE = 96
PLAN = [[(3, 0), (0, 0)], [(1, 0)], [(4, 0), (2, 0)]]
Usage = namedtuple("Usage", "total free")
Process = namedtuple("Process", "daemon")


@pytest.fixture
def samples(refshapes: ReferDataset, tokenizer: Tokenizer, viewed_store: Path) -> RefSamples:
    return RefSamples(refshapes, refshapes.refs_of("train"), tokenizer, SIZE, CandidateView(viewed_store, SIZE))


def assert_same(found: Batch, expected: Batch) -> None:
    for name in ("images", "masks", "input_ids", "attention_mask", "candidates", "offsets", "ref_ids"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)


def assert_reads(batches: list[Batch], samples: RefSamples) -> None:
    for batch, keys in zip(batches, PLAN, strict=True):
        assert_same(batch, collate([samples[key] for key in keys]))
        assert batch.ref_ids.tolist() == [samples.ref_ids[index] for index, _ in keys]


def processes_here() -> set[int | None]:
    return {process.pid for process in multiprocessing.active_children()}


def test_load_batches__reads_in_the_order_given(samples: RefSamples) -> None:
    batches = list(load_batches(samples, PLAN, num_workers=0))
    assert_reads(batches, samples)
    assert all(len(batch.candidates) for batch in batches)


def test_load_batches__plan_as_an_array(samples: RefSamples) -> None:
    keys = every_expression(samples.num_expressions)
    first, second = load_batches(samples, [keys[:5], keys[5:7]], num_workers=0)
    assert_same(second, collate([samples[int(index), int(number)] for index, number in keys[5:7]]))
    (again,) = load_batches(samples, keys[:5][None], num_workers=0)
    assert_same(again, first)


def test_load_batches__no_batches(samples: RefSamples) -> None:
    assert list(load_batches(samples, [], num_workers=0)) == []


def test_load_batches__leaves_torchs_generator_alone(samples: RefSamples) -> None:
    before = torch.get_rng_state()
    list(load_batches(samples, PLAN, num_workers=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_loader__processes_stay_for_the_next_read(samples: RefSamples) -> None:
    samples[0, 0]  # opens the view, and with it zarr's thread, which no forked process has
    others = processes_here()
    loader = Loader(samples, 2)
    assert_reads(list(loader.read(PLAN)), samples)
    processes = processes_here() - others
    assert len(processes) == 2
    unfinished = loader.read(PLAN)
    assert_same(next(unfinished), collate([samples[key] for key in PLAN[0]]))
    # A new read is not given what the one before did not take, which has ended.
    assert_reads(list(loader.read(PLAN)), samples)
    assert list(unfinished) == []
    assert processes_here() - others == processes
    reading = loader.read(PLAN)
    loader.close()
    assert processes_here() <= others
    assert list(reading) == []
    assert_reads(list(loader.read(PLAN)), samples)
    del loader
    assert processes_here() <= others


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loader__a_users_error_stays_one_line(
    refshapes: ReferDataset, tokenizer: Tokenizer, tmp_path: Path, num_workers: int
) -> None:
    samples = RefSamples(refshapes, refshapes.refs_of("train"), tokenizer, SIZE)
    samples._annotations._image_folder = tmp_path
    others = processes_here()
    with pytest.raises(InputError) as caught:
        list(load_batches(samples, PLAN, num_workers))
    assert processes_here() <= others
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path) in str(caught.value)
    unknown = RefSamples(refshapes, refshapes.refs_of("train"), tokenizer, SIZE, CandidateView(tmp_path / "no.zarr", 5))
    unknown._images = {image: torch.zeros(3, SIZE, SIZE, dtype=torch.uint8) for image in refshapes.image_ids}
    with pytest.raises(StoreError, match=r"no\.zarr") as store_error:
        list(load_batches(unknown, PLAN, num_workers=0))
    assert len(str(store_error.value).splitlines()) == 1


class Telling(RefSamples):
    """Instead of its image, a sample shows what goes on in the process that read it."""

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        sample = super().__getitem__(key)
        ignores = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        told = [os.getpid(), gc.get_freeze_count() > 0, torch.get_num_threads(), ignores, self.keeps, len(self._images)]
        sample.input_ids[: len(told)] = torch.tensor(told)
        return sample


def test_loader__what_a_process_is(refshapes: ReferDataset, tokenizer: Tokenizer) -> None:
    samples = Telling(refshapes, refshapes.refs_of("train"), tokenizer, SIZE)
    assert samples.keeps
    list(load_batches(samples, PLAN, num_workers=0))
    kept = len(samples._images)
    (batch,) = Loader(samples, 1).read([[(5, 0), (9, 0)]])
    (pid, *told), (other_pid, *_) = batch.input_ids[:, :6].tolist()
    assert pid == other_pid != os.getpid()
    # Frozen, one thread, Ctrl-C is its parent's to hear, keeps nothing beyond what was kept here.
    assert told == [1, 1, 1, 0, kept]
    assert samples.keeps


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="needs sigwaitinfo")
def test_loader__processes_end_only_when_their_parent_says_so(samples: RefSamples) -> None:
    others = processes_here()
    loader = Loader(samples, 1)
    reading = loader.read(PLAN)
    next(reading)
    (process,) = (process for process in multiprocessing.active_children() if process.pid not in others)
    # As to a group of processes: from somebody else.
    for name in ("TERM", "INT", "HUP"):
        subprocess.run(["kill", f"-{name}", str(process.pid)], check=True)
    assert len(list(reading)) == len(PLAN) - 1
    assert_reads(list(loader.read(PLAN)), samples)
    process.terminate()
    process.join(10)
    assert process.exitcode == 0


def read_for_ever(samples: RefSamples, told: Connection) -> None:
    reading = Loader(samples, 2).read(PLAN * 50)
    next(reading)
    told.send([process.pid for process in multiprocessing.active_children()])
    time.sleep(600)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_loader__processes_end_with_a_parent_that_was_killed(samples: RefSamples) -> None:
    """With batches on their way, which fill the pipes: nobody takes them any more."""
    context = multiprocessing.get_context("fork")
    told, teller = context.Pipe(duplex=False)
    parent = context.Process(target=read_for_ever, args=(samples, teller))
    parent.start()
    readers = told.recv()
    assert len(readers) == 2
    parent.kill()
    parent.join()
    deadline = time.monotonic() + 20  # torch's own looks every five seconds whether the parent is there
    while (left := [pid for pid in readers if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # nobody may be there who asks for its exit code


@pytest.fixture
def _no_forks() -> Iterator[None]:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.usefixtures("_no_forks")
def test_loader__processes_that_are_no_forks_share_the_annotations(samples: RefSamples) -> None:
    assert_reads(list(load_batches(samples, PLAN, num_workers=1)), samples)
    assert samples._annotations._bytes.is_shared()


def test_batch__pins_what_goes_to_the_device(samples: RefSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda tensor: tensor + 0 if tensor.dtype != torch.bool else ~tensor
    )
    (batch,) = load_batches(samples, PLAN[:1], num_workers=0)
    pinned = batch.pin_memory()
    assert torch.equal(pinned.masks, ~batch.masks)
    assert pinned.images is not batch.images
    assert torch.equal(pinned.ref_ids, batch.ref_ids)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_loader__pinned_batches(samples: RefSamples, num_workers: int) -> None:
    batches = list(Loader(samples, num_workers, pin_memory=True).read(PLAN))
    assert all(batch.images.is_pinned() and batch.candidates.is_pinned() for batch in batches)
    assert_reads(batches, samples)
    assert_same(batches[0].to(torch.device("cuda")).to(torch.device("cpu")), batches[0])


@pytest.mark.parametrize(
    ("num_cores", "num_ranks", "num_loaders", "expected"),
    [
        (1, None, 1, 0),
        (2, None, 1, 1),
        (2, "2", 1, 1),
        (4, None, 1, 3),
        (4, None, 2, 1),
        (16, None, 1, 8),
        (16, None, 2, 4),
        (16, "4", 1, 3),
        (16, "4", 2, 1),
        (128, "8", 1, 8),
    ],
)
def test_choose_num_workers__by_cores_ranks_and_loaders(
    samples: RefSamples,
    monkeypatch: pytest.MonkeyPatch,
    num_cores: int,
    num_ranks: str | None,
    num_loaders: int,
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(num_cores)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if num_ranks is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", num_ranks)
    assert choose_num_workers(samples, num_loaders=num_loaders) == 0  # RefShapes is kept in memory
    samples.keeps = False
    assert choose_num_workers(samples, num_loaders=num_loaders) == expected
    if num_loaders == 1:
        assert Loader(samples).num_workers == expected
    assert Loader(samples, 0).num_workers == 0


def test_choose_num_workers__without_affinity(samples: RefSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    samples.keeps = False
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert choose_num_workers(samples) == 3
    monkeypatch.setattr(multiprocessing, "current_process", lambda: Process(daemon=True))
    assert [Loader(samples, number).num_workers for number in (None, 2)] == [0, 0]  # Table 1's runs side by side
    monkeypatch.setattr(multiprocessing, "current_process", lambda: Process(daemon=False))
    assert [Loader(samples, number).num_workers for number in (None, 2)] == [3, 2]
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert choose_num_workers(samples) == 0


class Recording(Loader):
    """Notes how each batch came."""

    def read(self, plan):  # type: ignore[no-untyped-def]
        reading = super().read(plan)
        came = self._reading

        def note():  # type: ignore[no-untyped-def]
            for found in came:
                how.append(type(found).__name__)
                yield found

        self._reading = note()
        return reading


how: list[str] = []


@pytest.mark.parametrize(("free", "expected"), [(64 << 20, "Batch"), (33 << 20, "Batch"), (32 << 20, "_Piped")])
def test_loader__half_of_the_shared_memory_stays_free(
    samples: RefSamples, monkeypatch: pytest.MonkeyPatch, free: int, expected: str
) -> None:
    samples.keeps = False
    monkeypatch.setattr(loading_module, "SMALL", 0)
    monkeypatch.setattr(loading_module.shutil, "disk_usage", lambda path: Usage(64 << 20, free))
    how.clear()
    assert_reads(list(Recording(samples, 1).read(PLAN)), samples)
    assert how == [expected] * len(PLAN)


def test_loader__small_batches_go_through_pipes(samples: RefSamples) -> None:
    samples.keeps = False
    how.clear()
    found = list(Recording(samples, 1).read(PLAN))
    assert_reads(found, samples)
    sizes = [sum(t.nbytes for t in vars(batch).values() if isinstance(t, torch.Tensor)) for batch in found]
    assert max(sizes) < loading_module.SMALL
    assert how == ["_Piped"] * len(PLAN)


class NoRoom(RefSamples):
    """Read in a process for which shared memory is full: as there, the system refuses to make a file longer."""

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        if multiprocessing.parent_process() is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().__getitem__(key)


@pytest.mark.skipif(not loading_module.SHARED_MEMORY.is_dir(), reason="needs shared memory that is a file system")
def test_loader__full_shared_memory_is_not_waited_for(
    refshapes: ReferDataset, tokenizer: Tokenizer, viewed_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = CandidateView(viewed_store, SIZE)
    samples = NoRoom(refshapes, refshapes.refs_of("train"), tokenizer, SIZE, view)
    monkeypatch.setattr(loading_module, "SMALL", 0)
    monkeypatch.setattr(loading_module.shutil, "disk_usage", lambda path: Usage(1 << 40, 1 << 40))
    how.clear()
    assert_reads(list(Recording(samples, 2).read(PLAN)), samples)
    assert how == ["_Piped"] * len(PLAN)


def test_piped__pins_what_goes_to_the_device(samples: RefSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    (batch,) = load_batches(samples, PLAN[:1], num_workers=0)
    piped = loading_module._Piped({name: t.numpy() for name, t in vars(batch).items() if isinstance(t, torch.Tensor)})
    assert_same(piped.pin_memory(), batch)


@pytest.mark.usefixtures("_no_forks")
def test_loader__no_room_for_the_annotations(samples: RefSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(storage: torch.UntypedStorage) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
    monkeypatch.setattr(torch.UntypedStorage, "_share_filename_cpu_", full)
    others = processes_here()
    with pytest.raises(InputError, match=r"No space left on device \(28\)\): .*--shm-size 1g\), or --num-workers 0"):
        list(load_batches(samples, PLAN, num_workers=1))
    assert processes_here() <= others


class Failing(RefSamples):
    """Reads nothing."""

    error: Exception | None = None

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        if self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        assert self.error is not None
        raise self.error


def test_loader__a_process_that_was_killed_is_one_line(refshapes: ReferDataset, tokenizer: Tokenizer) -> None:
    samples = Failing(refshapes, refshapes.refs_of("train"), tokenizer, SIZE)
    with pytest.raises(InputError, match=r"one of them dead .*: .*--num-workers") as caught:
        list(load_batches(samples, PLAN, num_workers=2))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    "error", [InputError("a"), StoreError("b"), PermissionError(13, "not for you", "c.jpg"), MemoryError("d")]
)
def test_loader__what_may_go_wrong_with_a_sample_comes_as_it_is(
    refshapes: ReferDataset, tokenizer: Tokenizer, num_workers: int, error: Exception
) -> None:
    samples = Failing(refshapes, refshapes.refs_of("train"), tokenizer, SIZE)
    samples.error = error
    with pytest.raises(type(error)) as caught:
        list(load_batches(samples, PLAN, num_workers))
    assert str(caught.value) == str(error)
    assert "Traceback" not in str(caught.value)
