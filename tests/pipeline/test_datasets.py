"""Nothing hidden: a data set that lost refs on loading says so at the start of every command that reads it."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from semires.pipeline import datasets
from semires.pipeline.audit import unlabeled
from semires.pipeline.datasets import problems_line, read_dataset, require_whole
from semires.pipeline.paths import Paths
from semires.pipeline.reporting import figure
from semires.pipeline.running import jobs, stage_runs
from semires.pipeline.running.jobs import TrainJob, do_job
from semires.pipeline.scoring import measuring
from semires.pipeline.study import preparing
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam
from semires.stages.data.errors import InputError
from semires.stages.data.problems import ReferProblems
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

Semires = Callable[..., Any]


@pytest.fixture
def lossy(write_refer: Callable[..., Any], write_store: Callable[..., None]) -> Path:
    """A data root with a RefCOCO of which one train image's file is gone, and the candidates of the others."""
    fake = write_refer("refcoco")
    next(iter(sorted(fake.images.iterdir()))).unlink()
    write_store(Paths(data=fake.root).store("refcoco"), "refcoco", fake.train_ids[1:])
    return fake.root


def line_of(root: Path) -> str:
    return (
        "refcoco: 2 refs dropped: image file missing (ref ids 0, 1); labeled images and scores are those of what is "
        f"left; put the missing images into {root / 'images/mscoco/images/train2014'}"
    )


def stop(*args: Any, **kwargs: Any) -> None:
    raise InputError("the work begins")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command ends where its work begins."""
    monkeypatch.setattr(stage_runs, "check_run", stop)
    monkeypatch.setattr(preparing, "check_run", stop)
    monkeypatch.setattr(stage_runs, "cache_images", stop)
    monkeypatch.setattr(measuring, "measure", stop)
    monkeypatch.setattr(unlabeled, "prepare_candidates", stop)
    monkeypatch.setattr(figure, "prepare_candidates", stop)


def write_run(path: Path) -> Path:
    config = TrainConfig(split="refcoco", model="nano", method="supervised", labeled=0.25)
    folder = RunFolder(path)
    folder.start(config, [1037])
    folder.save_best(config.build_model(pretrained=False).state_dict())
    folder.finish({})
    return path


def write_sam(path: Path) -> Path:
    save_file(build_tiny_sam().state_dict(), path)
    return path


COMMANDS = pytest.mark.parametrize(
    "command",
    [
        ("train", "--split", "refcoco", "--model", "nano", "--labeled", 0.25),
        ("table1", "--split", "refcoco"),
        ("evaluate", "RUN", "--split", "train"),
        ("figure", "RUN"),
        ("study", "labels", "RUN"),
        ("cache-sam", "--split", "refcoco", "--sam", "tiny", "--sam-checkpoint", "sam.safetensors"),
    ],
    ids=lambda command: " ".join(command[:2]) if command[0] == "study" else command[0],
)


@pytest.fixture
def finished(semires: Semires, tmp_path: Path, lossy: Path) -> Callable[..., Any]:
    """What a command left that reads the lossy data set."""
    files = {"RUN": write_run, "sam.safetensors": write_sam}

    def run(command: tuple[object, ...], *options: object) -> Any:
        made = [files[of](tmp_path / of) if isinstance(of, str) and of in files else of for of in command]
        return semires(*made, "--data", lossy, "--device", "cpu", *options)

    return run


@pytest.mark.usefixtures("no_work")
@COMMANDS
def test_command__says_what_the_data_set_lost_before_it_works(
    finished: Callable[..., Any], lossy: Path, command: tuple[object, ...]
) -> None:
    code, out, err = finished(command, "--allow-missing")
    if command[0] == "table1":  # goes on with other data sets
        assert (code, err) == (1, "")
        assert "not measured: refcoco 0.5%: the work begins" in out.splitlines()
    else:
        assert (code, err) == (2, "error: the work begins\n")
    assert out.splitlines().count(line_of(lossy)) == 1


@COMMANDS
def test_command__needs_to_be_told_that_more_than_one_per_cent_may_be_lost(
    finished: Callable[..., Any], lossy: Path, command: tuple[object, ...]
) -> None:
    """Two of three val images were gone, and the scores were those of the third, without a word."""
    code, out, err = finished(command)
    text = (
        "refcoco: expected at most 1% of a split's refs dropped on loading, found 2 of 16 of train (ref ids 0, 1); put "
        f"the missing images into {lossy / 'images/mscoco/images/train2014'}; or give --allow-missing to go on without "
        "them"
    )
    if command[0] == "table1":
        assert code == 1
        assert f"not measured: {text}" in out.splitlines()
    else:
        assert (code, err) == (2, f"error: {text}\n")


def test_evaluate__other_splits_are_whole(finished: Callable[..., Any]) -> None:
    code, out, _ = finished(("evaluate", "RUN", "--split", "val"))
    assert code == 0
    assert "val: 4 refs of 2 images" in out


@pytest.mark.parametrize(("num_lost", "num_refs", "is_refused"), [(1, 100, False), (2, 100, True), (1, 99, True)])
def test_require_whole__one_per_cent(
    write_refer: Callable[..., Any], num_lost: int, num_refs: int, is_refused: bool
) -> None:
    paths = Paths(data=write_refer("refcoco").root)
    dataset = ReferDataset.load(paths.data, "refcoco")
    ids = tuple(range(num_lost))
    dataset.problems = ReferProblems(no_mask=ids, num_refs={"testA": num_refs}, dropped_of={"testA": ids})
    require_whole(dataset, paths, ["val", "testB"])
    require_whole(dataset, dataclasses.replace(paths, allow_missing=True), ["testA"])
    if is_refused:
        for names in (["val", "testA"], ["test"]):
            with pytest.raises(InputError, match=f"found {num_lost} of {num_refs} of test.*compare the files in"):
                require_whole(dataset, paths, names)
    else:
        require_whole(dataset, paths, ["testA"])


@pytest.mark.parametrize(
    "command",
    [
        ("verify", "STORE", "--split", "refcoco"),
        ("show", "STORE", 1037, "--split", "refcoco"),
        ("export", "STORE", "exported", "--split", "refcoco"),
        ("import", "exported", "--split", "refcoco", "--store", "other.zarr"),
    ],
    ids=lambda command: command[0],
)
def test_cache_command__says_what_the_data_set_lost(semires: Semires, lossy: Path, command: tuple[object, ...]) -> None:
    store = Paths(data=lossy).store("refcoco")
    if command[0] == "import":
        semires("cache", "export", store, "exported")
    finished = semires("cache", *(store if given == "STORE" else given for given in command), "--data", lossy)
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.splitlines()[0] == line_of(lossy)


def test_read_dataset__says_it_once_a_process(lossy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert read_dataset(Paths(data=lossy), "refcoco").problems.num_dropped == 2
    assert capsys.readouterr().out == f"{line_of(lossy)}\n"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_read_dataset__of_torchruns_workers_the_first_says_it(
    lossy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    read_dataset(Paths(data=lossy), "refcoco")
    assert bool(capsys.readouterr().out) == (rank == "0")


def test_read_dataset__a_whole_one_has_nothing_to_say(
    write_refer: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    read_dataset(Paths(data=write_refer("refcoco").root), "refcoco")
    assert capsys.readouterr().out == ""


def test_do_job__does_not_repeat_it(
    tmp_path: Path, lossy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that wants a study's runs has said it."""
    read: list[ReferDataset] = []
    monkeypatch.setattr(jobs, "train", lambda *args, dataset, **options: read.append(dataset))
    monkeypatch.setattr(jobs, "evaluate_run", lambda run, paths, device, tell, dataset: read.append(dataset))
    job = TrainJob(label="a run", config=TrainConfig(split="refcoco"), folder=tmp_path / "run", burn_in=None)
    assert do_job(job, Paths(data=lossy), torch.device("cpu"), lambda *what: None)
    assert [dataset.problems.num_dropped for dataset in read] == [2, 2]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("problems", "expected"),
    [
        ({}, None),
        (
            {"single_text": (3,)},
            "refcoco: 1 refs kept with sentences that lack `raw` or `sent`: one stands for both (ref ids 3)",
        ),
        (
            {"no_mask": (1, 2), "empty_expressions": (7,)},
            "refcoco: 2 refs dropped: annotation without a mask (ref ids 1, 2); 1 refs kept without their empty "
            "expressions (ref ids 7); labeled images and scores are those of what is left; compare the files in "
            "ROOT/refcoco with the published ones",
        ),
    ],
)
def test_problems_line__what_to_do_about_it(
    write_refer: Callable[..., Any], problems: dict[str, Any], expected: str | None
) -> None:
    root = write_refer("refcoco").root
    dataset = ReferDataset.load(root, "refcoco")
    dataset.problems = dataclasses.replace(ReferProblems(), **problems)
    line = problems_line(dataset, Paths(data=root))
    assert line == (None if expected is None else expected.replace("ROOT", str(root)))


def test_datasets__are_read_in_one_place() -> None:
    """A command that loaded a data set by itself would not say what it lost; the processes of a study must not."""
    pipeline = Path(datasets.__file__).parent
    loading = {
        path.name
        for path in pipeline.rglob("*.py")
        if any(f"{name}(" in path.read_text("utf-8") for name in ("ReferDataset.load", "open_dataset"))
    }
    assert loading == {"datasets.py", "jobs.py"}


def test_problems_line__what_a_user_should_know_of_own_data(refshapes: ReferDataset) -> None:
    own = copy.copy(refshapes)
    own.notes = ("2 images ask by EXIF to be turned",)
    assert problems_line(own, Paths()) == "refshapes: 2 images ask by EXIF to be turned"
