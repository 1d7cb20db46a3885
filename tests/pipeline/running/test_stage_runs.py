import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.views import CandidateView
from semires.pipeline import datasets
from semires.pipeline.datasets import load_dataset
from semires.pipeline.paths import Paths
from semires.pipeline.running import stage_runs
from semires.pipeline.running.stage_runs import cache_sam, choose_device, prepare_candidates, train
from semires.stages.cache_sam.filling import CacheReport
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.sam import load_sam
from semires.stages.cache_sam.sources import train_images
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.data.refshapes.writer import RefShapesConfig
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
FEW_POINTS = GeneratorSettings(points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0)


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture
def small_refshapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "REFSHAPES", RefShapesConfig(num_train=4, num_val=1, num_test=1))


def cache(dataset: ReferDataset, store: Path, sam_file: Path, settings: GeneratorSettings = FEW_POINTS) -> CacheReport:
    return cache_sam(
        train_images(dataset),
        store,
        split=dataset.spec.name,
        loaded=load_sam("tiny", sam_file, CPU),
        settings=settings,
        overwrite=False,
        on_progress=ignore,
    )


def test_choose_device__asked_for_or_the_best_here() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", [None, "cuda"])
def test_choose_device__each_worker_its_own_gpu(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert choose_device(name) == torch.device("cuda")
    for local_rank, index in (("0", 0), ("3", 3), ("5", 1)):
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        assert choose_device(name) == torch.device("cuda", index)
    assert choose_device("cuda:2") == torch.device("cuda", 2)
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cpu:x"])
def test_choose_device__not_here(name: str) -> None:
    with pytest.raises(InputError, match=f"--device: expected a device of this machine .* found '{name}'"):
        choose_device(name)


@pytest.mark.usefixtures("small_refshapes")
def test_load_dataset__refshapes_is_written_once(tmp_path: Path) -> None:
    paths, seen = Paths(data=tmp_path), []
    dataset = load_dataset(paths, "refshapes", lambda *args: seen.append(args))
    assert seen[-1] == ("drawing RefShapes", 7, 7)
    assert len({ref.image_id for ref in dataset.refs_of("train")}) == 4
    again = load_dataset(paths, "refshapes", ignore)
    assert again.refs == dataset.refs
    assert len(seen) == 7


def test_load_dataset__image_folder_elsewhere(tmp_path: Path, write_refer: Callable[..., Any]) -> None:
    fake = write_refer("refcoco", images=tmp_path / "coco")
    with pytest.raises(InputError, match="no images for refcoco"):
        load_dataset(Paths(data=fake.root), "refcoco", ignore)
    dataset = load_dataset(Paths(data=fake.root, images=tmp_path / "coco"), "refcoco", ignore)
    assert dataset.image_folder == tmp_path / "coco"
    assert dataset.problems.num_dropped == 0


def test_cache_sam__train_images_of_a_refer_folder(
    tmp_path: Path, write_refer: Callable[..., Any], sam_file: Path
) -> None:
    fake = write_refer("refcoco", num_train=3, images=tmp_path / "coco")
    dataset = load_dataset(Paths(data=fake.root, images=tmp_path / "coco"), "refcoco", ignore)
    sources = train_images(dataset)
    assert [source.image_id for source in sources] == fake.train_ids  # not those of val and test
    assert all(source.path.is_file() for source in sources)
    store = tmp_path / "refcoco.zarr"
    assert cache(dataset, store, sam_file).num_added == 3
    assert CandidateStore(store).image_ids.tolist() == fake.train_ids
    assert CandidateStore(store).manifest.split == "refcoco"
    again = cache(dataset, store, sam_file)
    assert (again.num_present, again.num_added) == (3, 0)


@pytest.mark.usefixtures("small_refshapes")
def test_prepare_candidates__refshapes_makes_its_own(
    tmp_path: Path, sam_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semires.stages.cache_sam.models.sam.weights_path", lambda: sam_file)
    monkeypatch.setattr("semires.stages.cache_sam.models.sam.GENERATOR_SETTINGS", FEW_POINTS)
    paths = Paths(data=tmp_path)
    dataset = load_dataset(paths, "refshapes", ignore)
    seen: set[str] = set()
    prepare_candidates(paths, dataset, 64, paths.store("refshapes"), lambda what, *rest: seen.add(what))
    assert seen == {"candidate masks", "candidates at 64x64"}
    assert len(CandidateView(paths.store("refshapes"), 64)) == 4


@pytest.mark.usefixtures("small_refshapes")
def test_prepare_candidates__a_store_made_with_own_settings_is_taken(
    tmp_path: Path, sam_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(data=tmp_path)
    dataset = load_dataset(paths, "refshapes", ignore)
    cache(dataset, paths.store("refshapes"), sam_file)

    def cache_again(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("cached again")

    monkeypatch.setattr(stage_runs, "cache_sam", cache_again)
    prepare_candidates(paths, dataset, 64, paths.store("refshapes"), ignore)
    assert len(CandidateView(paths.store("refshapes"), 64)) == 4


def test_prepare_candidates__other_splits_need_a_store(
    tmp_path: Path, write_refer: Callable[..., Any], write_store: Callable[..., None]
) -> None:
    fake = write_refer("refcoco")
    paths = Paths(data=fake.root)
    dataset = load_dataset(paths, "refcoco", ignore)
    with pytest.raises(StoreError, match="cache-sam"):
        prepare_candidates(paths, dataset, 64, paths.store("refcoco"), ignore)
    write_store(paths.store("refcoco"), "refcoco", fake.train_ids)
    prepare_candidates(paths, dataset, 64, paths.store("refcoco"), ignore)
    assert len(CandidateView(paths.store("refcoco"), 64)) == 8


def nano(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "split": "refcoco",
        "model": "nano",
        "labeled": 0.25,
        "burn_in_epochs": 1,
        "mutual_epochs": 1,
        "num_evaluations": 1,
        "batch_unlabeled": 6,
    }
    return TrainConfig(**(values | changes))


def test_train__a_refer_folder_under_a_real_name(
    tmp_path: Path, write_refer: Callable[..., Any], write_store: Callable[..., None]
) -> None:
    fake = write_refer("refcoco")
    paths = Paths(data=fake.root)
    write_store(paths.store("refcoco"), "refcoco", fake.train_ids)
    sorted(fake.images.iterdir())[-1].unlink()  # a testB image with two refs
    seen: set[str] = set()
    result = train(nano(), paths, tmp_path / "run", CPU, lambda what, *rest: seen.add(what))
    assert {"candidates at 96x96", "supervised", "semires", "evaluation"} <= seen
    assert (tmp_path / "run" / "result.json").is_file()
    assert result["steps"] == 2  # 12 unlabeled refs, 6 a step
    assert result["dropped_refs"] == 2


@pytest.mark.parametrize("case", ["settings", "burn-in", "share", "all labeled"])
def test_train__refuses_before_candidates_are_made(
    tmp_path: Path, write_refer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    fake = write_refer("refcoco")
    config, burn_in, run = nano(), None, tmp_path / "run"
    if case == "settings":
        with pytest.raises(StoreError):  # no store: the run stops, but its folder is there
            train(config, Paths(data=fake.root), run, CPU, ignore)
        stage_runs.train_run(config.burn_in(), load_dataset(Paths(data=fake.root), "refcoco", ignore), run, CPU)
        text = "holds a run with method 'supervised', asked for 'semires'"
    elif case == "burn-in":
        burn_in, text = tmp_path / "nowhere", "nowhere"
    elif case == "share":
        config, text = nano(labeled=0.01), "at least one image"
    else:
        config, text = nano(labeled=1.0), "leaves no unlabeled image"

    def prepare(*args: Any) -> None:
        raise AssertionError("candidates were made")

    monkeypatch.setattr(stage_runs, "prepare_candidates", prepare)
    with pytest.raises(InputError, match=text):
        train(config, Paths(data=fake.root), run, CPU, ignore, burn_in=burn_in)


def test_train__store_elsewhere(
    tmp_path: Path, refshapes_root: Path, refshapes_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "REFSHAPES", RefShapesConfig(num_train=12, num_val=4, num_test=3))
    shutil.copytree(refshapes_store, tmp_path / "mine.zarr")
    config = nano(split="refshapes", batch_unlabeled=24)
    train(config, Paths(data=refshapes_root), tmp_path / "run", CPU, ignore, store=tmp_path / "mine.zarr")
    assert (tmp_path / "run" / "result.json").is_file()
    assert not (refshapes_root / "cache").exists()


def test_train__loggers_hear_each_line_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_run(config: TrainConfig, dataset: None, run: Path, device: torch.device, **given: Any) -> dict[str, int]:
        RunFolder(run).start(config, [1])
        line = {"phase": "mutual", "step": 1, "loss_sup": 0.5}
        RunFolder(run).log(line)
        given["on_metrics"](line)
        return {"num_events": len(list((run / "tensorboard").iterdir()))}

    monkeypatch.setattr(stage_runs, "prepare", lambda *args, **given: (None, None))
    monkeypatch.setattr(stage_runs, "train_run", train_run)
    paths = Paths(data=tmp_path, runs=tmp_path / "runs")
    result = train(nano(), paths, paths.runs / "mine", CPU, ignore, log_to=["tensorboard"])
    assert result == {"num_events": 1}
