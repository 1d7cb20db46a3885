import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.pipeline.datasets import REFSHAPES
from semires.pipeline.paths import Paths
from semires.pipeline.planning.counts import count_samples
from semires.pipeline.recipes import train_recipe
from semires.stages.data.checking.counts import PUBLISHED
from semires.stages.data.labeled import draw_labeled_images, split_refs
from semires.stages.data.refer import ReferDataset
from semires.stages.data.refshapes.writer import REFS_PER_IMAGE
from semires.stages.train.config import TrainConfig
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.train_data import TrainData


@pytest.mark.parametrize(
    ("config", "labeled", "unlabeled"),
    [
        (TrainConfig(), 432, 41_972),  # the paper's
        (TrainConfig(split="refcoco+"), 448, 41_830),
        (TrainConfig(split="refcocog"), 429, 41_797),
        (TrainConfig(labeled=0.05), 2_118, 40_286),  # 849 images of 16,994
        (TrainConfig(labeled_seed=1), 422, 41_982),
    ],
    ids=lambda value: value.split if isinstance(value, TrainConfig) else str(value),
)
def test_count_samples__published_where_the_data_is_not_here(
    tmp_path: Path, config: TrainConfig, labeled: int, unlabeled: int
) -> None:
    counts = count_samples(config, Paths(data=tmp_path))
    assert counts is not None
    assert (counts.labeled, counts.unlabeled) == (labeled, unlabeled)
    assert counts.val_expressions == PUBLISHED[config.split]["val"].expressions
    assert "published" in counts.source
    assert ("as many an image as all have" in counts.source) == (config.labeled != 0.01 or config.labeled_seed != 0)


def test_count_samples__of_a_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("1\n2\n3\n4\n")
    config = TrainConfig(labeled_list=str(tmp_path / "list.txt"))
    counts = count_samples(config, Paths(data=tmp_path))
    assert counts is not None
    assert counts.labeled == 10  # 2.495 refs an image


def test_count_samples__nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PUBLISHED, "refcocog-google")
    assert count_samples(TrainConfig(split="refcocog-google"), Paths(data=tmp_path)) is None


def test_count_samples__refshapes_before_it_is_drawn(tmp_path: Path) -> None:
    counts = count_samples(train_recipe("refshapes"), Paths(data=tmp_path))
    assert counts is not None
    assert (counts.labeled, counts.unlabeled) == (150, 2850)
    assert PUBLISHED["refshapes"]["train"].images == REFSHAPES.num_train
    assert PUBLISHED["refshapes"]["train"].refs == REFSHAPES.num_train * REFS_PER_IMAGE


def test_count_samples__counted_where_the_data_is_here(refshapes_root: Path, refshapes: ReferDataset) -> None:
    config = dataclasses.replace(train_recipe("refshapes"), labeled=0.25)  # 3 of 12 images
    counts = count_samples(config, Paths(data=refshapes_root))
    assert counts is not None
    assert counts.labeled == 9
    assert counts.labeled + counts.unlabeled == len(refshapes.refs_of("train"))
    assert counts.val_expressions == sum(len(ref.expressions) for ref in refshapes.refs_of("val"))
    assert counts.source == f"counted in {refshapes_root}"


def test_count_samples__of_refer_files(write_refer: Callable[..., Any]) -> None:
    fake = write_refer("refcoco", num_train=4)
    counts = count_samples(TrainConfig(labeled=0.5), Paths(data=fake.root))
    assert counts is not None
    assert (counts.labeled, counts.unlabeled, counts.val_expressions) == (4, 4, 8)


@pytest.mark.parametrize(
    ("split", "steps"),
    [("refcoco", 139_906), ("refshapes", 1187)],  # 41,972 x 40 / 12, 2,850 x 5 / 12
)
def test_count_samples__steps_where_the_data_is_not_here(tmp_path: Path, split: str, steps: int) -> None:
    config, paths = train_recipe(split), Paths(data=tmp_path)
    counts = count_samples(config, paths)
    assert counts is not None
    assert counts.mutual_steps == steps
    whole_images = count_samples(dataclasses.replace(config, method="semires-cc"), paths)
    assert whole_images is not None
    # Batches of RefCOCO's images have 11 refs of 12 in the mean, those of RefShapes' always 12.
    assert whole_images.mutual_steps == (int(41_972 * 40 / 11) if split == "refcoco" else steps)


@pytest.mark.parametrize("batch", [1, 2, 4, 5])
def test_count_samples__steps_of_whole_images_as_a_run_makes_them(
    refshapes_root: Path, refshapes: ReferDataset, batch: int
) -> None:
    config = dataclasses.replace(
        train_recipe("refshapes"), labeled=0.25, method="semires-cc", batch_unlabeled=batch, mutual_epochs=3, seed=4
    )
    counts = count_samples(config, Paths(data=refshapes_root))
    assert counts is not None
    labeled, unlabeled = split_refs(refshapes.refs_of("train"), draw_labeled_images(refshapes.refs_of("train"), 0.25))
    tokenizer = config.build_model(pretrained=False).tokenizer
    of_refs = [RefSamples(refshapes, refs, tokenizer, 96) for refs in (labeled, unlabeled)]
    data = TrainData(labeled=of_refs[0], unlabeled=of_refs[1], val=of_refs[0])
    assert counts.mutual_steps == data.plan(config).num_steps


def test_count_samples__says_what_is_missing_of_data_that_is_here_in_part(
    tmp_path: Path, write_refer: Callable[..., Any]
) -> None:
    fake = write_refer("refcoco", image_files=False)
    fake.images.rmdir()
    counts = count_samples(TrainConfig(), Paths(data=fake.root))
    assert counts is not None
    assert counts.source == f"published counts: there is no {fake.images}"
