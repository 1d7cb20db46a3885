from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semires.cache.views import CandidateView
from semires.stages.data.refer import ReferDataset
from semires.stages.processes.ranks import Ranks
from semires.stages.train.config import TrainConfig
from semires.stages.train.labels.group_labels import GroupConfig
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.train_data import TrainData

SIZE = 96
CPU = torch.device("cpu")


@pytest.fixture
def data(refshapes: ReferDataset, tokenizer: Tokenizer, viewed_store: Path) -> TrainData:
    """4 labeled refs, and as unlabeled ones all of 12 images."""
    refs = refshapes.refs_of("train")
    view = CandidateView(viewed_store, SIZE)
    return TrainData(
        labeled=RefSamples(refshapes, refs[:4], tokenizer, SIZE),
        unlabeled=RefSamples(refshapes, refs, tokenizer, SIZE, view),
        val=RefSamples(refshapes, refshapes.refs_of("val")[:2], tokenizer, SIZE),
    )


@pytest.fixture
def config(nano_config: Callable[..., TrainConfig]) -> TrainConfig:
    group = GroupConfig(expressions=2)
    return nano_config(method="semires-cc", group=group, batch_labeled=2, batch_unlabeled=8, mutual_epochs=2)


def test_plan__whole_images_and_as_many_labeled_batches(data: TrainData, config: TrainConfig) -> None:
    plan = data.plan(config)
    assert data.unlabeled is not None
    assert plan.unlabeled is not None
    assert plan.num_steps == len(plan.labeled) == len(plan.unlabeled)
    refs = [ref for keys in plan.unlabeled for ref in keys[:, 0].tolist()]
    assert sorted(refs) == sorted([*range(len(data.unlabeled))] * 2)
    assert plan.samples_per_step == pytest.approx(2 + len(refs) / plan.num_steps)


def test_batches__of_an_image_all_refs_with_two_expressions(data: TrainData, config: TrainConfig) -> None:
    plan = data.plan(config)
    labeled, unlabeled = data.batches(config, plan, 0, Ranks(), CPU)
    assert data.unlabeled is not None
    for batch_l, batch_u, keys in zip(labeled, unlabeled, plan.unlabeled or [], strict=True):
        assert batch_u is not None
        assert len(batch_l) == 2
        assert batch_l.bounds is batch_u.bounds is None
        assert batch_u.ref_ids.tolist() == data.unlabeled.ref_ids[keys[:, 0]].tolist()
        assert batch_u.image_ids.tolist() == data.unlabeled.image_ids[keys[:, 0]].tolist()
        assert len(batch_u.other_of) == sum(data.unlabeled.num_expressions[keys[:, 0]] > 1)
        for image_id in set(batch_u.image_ids.tolist()):
            of_image = (data.unlabeled.image_ids == image_id).sum()
            assert (batch_u.image_ids == image_id).sum() % of_image == 0


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_batches__ranks_share_whole_images(data: TrainData, config: TrainConfig, world_size: int) -> None:
    plan = data.plan(config)
    whole = list(data.batches(config, plan, 0, Ranks(), CPU)[1])
    config_l = TrainConfig(**{**vars(config), "batch_labeled": 5})
    shares = [data.batches(config_l, plan, 0, Ranks(None, rank, world_size), CPU)[1] for rank in range(world_size)]
    for of_ranks, expected in zip(zip(*shares, strict=True), whole, strict=True):
        assert expected is not None
        batches = [batch for batch in of_ranks if batch is not None]
        assert len(batches) == world_size
        assert torch.equal(torch.cat([batch.ref_ids for batch in batches]), expected.ref_ids)
        assert torch.equal(torch.cat([batch.candidates for batch in batches]), expected.candidates)
        images = [set(batch.image_ids.tolist()) for batch in batches]
        assert len(set.union(*images)) == sum(map(len, images))  # no image on two ranks
        ends = torch.tensor([0, *map(len, batches)]).cumsum(0).tolist()
        assert {batch.bounds for batch in batches} == {tuple(ends)}


def test_batches__resumed_are_the_tail_of_the_whole(data: TrainData, config: TrainConfig) -> None:
    plan = data.plan(config)
    whole = list(data.batches(config, plan, 0, Ranks(), CPU)[1])
    rest = list(data.batches(config, plan, 3, Ranks(), CPU)[1])
    assert len(rest) == len(whole) - 3
    for found, expected in zip(rest, whole[3:], strict=True):
        assert found is not None
        assert expected is not None
        assert torch.equal(found.input_ids, expected.input_ids)
        assert torch.equal(found.other_input_ids, expected.other_input_ids)
