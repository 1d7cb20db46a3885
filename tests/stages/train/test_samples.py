import dataclasses
import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch

from semires.cache.views import CandidateView
from semires.stages.data.images import resize_image
from semires.stages.data.masks import resize_mask
from semires.stages.data.refer import ReferDataset
from semires.stages.train import samples as samples_module
from semires.stages.train.matching import unpack_bits
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.samples import (
    Batch,
    RefSamples,
    Sample,
    collate,
    every_expression,
    load_batches,
    training_plan,
)

SIZE = 96
BYTES = SIZE * SIZE // 8


def sample_of(num_candidates: int, value: int = 0) -> Sample:
    return Sample(
        image=torch.full((3, 4, 4), value, dtype=torch.uint8),
        mask=torch.full((4, 4), bool(value)),
        input_ids=torch.full((5,), value),
        attention_mask=torch.ones(5, dtype=torch.int64),
        candidates=torch.full((num_candidates, 2), value, dtype=torch.uint8),
    )


def assert_same(found: Sample, expected: Sample) -> None:
    for name in ("image", "mask", "input_ids", "attention_mask", "candidates"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)


@pytest.fixture
def with_candidates(refshapes: ReferDataset, tokenizer: Tokenizer, viewed_store: Path) -> RefSamples:
    refs = refshapes.refs_of("train")
    return RefSamples(refshapes, refs, tokenizer, SIZE, CandidateView(viewed_store, SIZE))


def test_ref_samples__a_sample_is_the_ref_at_training_size(
    refshapes: ReferDataset, tokenizer: Tokenizer, with_candidates: RefSamples, viewed_store: Path
) -> None:
    index = next(i for i, ref in enumerate(with_candidates.refs) if len(ref.expressions) > 1)
    ref = with_candidates.refs[index]
    sample = with_candidates[index, 1]
    expected = torch.from_numpy(resize_image(refshapes.image(ref.image_id), SIZE)).permute(2, 0, 1)
    assert sample.image.dtype == torch.uint8
    assert torch.equal(sample.image, expected)
    assert sample.mask.dtype == torch.bool
    assert torch.equal(sample.mask, torch.from_numpy(resize_mask(refshapes.mask(ref), SIZE)))
    assert torch.equal(sample.input_ids, tokenizer([ref.expressions[1]])[0][0])
    assert torch.equal(sample.attention_mask, tokenizer([ref.expressions[1]])[1][0])
    assert sample.candidates.dtype == torch.uint8
    assert torch.equal(sample.candidates, torch.from_numpy(CandidateView(viewed_store, SIZE)[ref.image_id]))


def test_ref_samples__candidates_hold_the_referents_true_mask(with_candidates: RefSamples) -> None:
    # The shared store holds every object's true mask: one candidate of each sample is the referent.
    for index in range(len(with_candidates)):
        sample = with_candidates[index, 0]
        assert (unpack_bits(sample.candidates, SIZE) == sample.mask).all(dim=2).all(dim=1).any()


def test_ref_samples__no_view_no_candidates(refshapes: ReferDataset, tokenizer: Tokenizer) -> None:
    sample = RefSamples(refshapes, refshapes.refs_of("val"), tokenizer, SIZE)[0, 0]
    assert sample.candidates.shape == (0, BYTES)
    # 7 x 7 pixels: 49 bits take 7 bytes.
    assert RefSamples(refshapes, refshapes.refs_of("val"), tokenizer, 7)[0, 0].candidates.shape == (0, 7)


def test_ref_samples__read_the_text_asked_for(refshapes: ReferDataset, tokenizer: Tokenizer) -> None:
    ref = dataclasses.replace(
        refshapes.refs_of("train")[0], expressions=("house", "it"), raw_expressions=("House!", "It")
    )
    for options, texts in (({}, ref.raw_expressions), ({"text": "sent"}, ref.expressions)):
        samples = RefSamples(refshapes, [ref], tokenizer, SIZE, **options)
        for number, text in enumerate(texts):
            input_ids, attention_mask = tokenizer([text])
            assert torch.equal(samples[0, number].input_ids, input_ids[0])
            assert torch.equal(samples[0, number].attention_mask, attention_mask[0])
    assert not torch.equal(tokenizer(["house"])[0], tokenizer(["House!"])[0])


def test_ref_samples__kept_in_memory_or_not_are_the_same(
    refshapes: ReferDataset, tokenizer: Tokenizer, viewed_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = refshapes.refs_of("train")[:6]
    reads: Counter[int] = Counter()
    image = refshapes.image

    def counted(image_id: int) -> object:
        reads[image_id] += 1
        return image(image_id)

    monkeypatch.setattr(refshapes, "image", counted)
    view = CandidateView(viewed_store, SIZE)
    kept = RefSamples(refshapes, refs, tokenizer, SIZE, view)
    monkeypatch.setattr(samples_module, "MEMORY_LIMIT", 0)
    not_kept = RefSamples(refshapes, refs, tokenizer, SIZE, view)
    first = [kept[index, 0] for index in range(len(refs))]
    assert set(reads.values()) == {1}  # refs of one image share it
    again = [kept[index, 0] for index in range(len(refs))]
    assert set(reads.values()) == {1}
    read = [not_kept[index, 0] for index in range(len(refs))]
    assert sum(reads.values()) == len(reads) + len(refs)
    for found in (again, read):
        for one, other in zip(found, first, strict=True):
            assert_same(one, other)


def test_ref_samples__pickle_to_loader_processes(with_candidates: RefSamples) -> None:
    expected = with_candidates[2, 0]
    assert_same(pickle.loads(pickle.dumps(with_candidates))[2, 0], expected)


@pytest.mark.parametrize("counts", [[2, 0, 3], [0, 0], [0, 4], [1]])
def test_collate__offsets_count_candidates(counts: list[int]) -> None:
    batch = collate([sample_of(count, value) for value, count in enumerate(counts)])
    assert len(batch) == len(counts)
    assert batch.images.shape == (len(counts), 3, 4, 4)
    assert batch.masks.dtype == torch.bool
    assert batch.offsets.dtype == torch.int64
    assert batch.offsets.tolist() == [sum(counts[:n]) for n in range(len(counts) + 1)]
    assert batch.candidates.shape == (sum(counts), 2)
    for value in range(len(counts)):
        low, high = batch.offsets[value : value + 2].tolist()
        assert (batch.candidates[low:high] == value).all()


def test_batch_to__moves_all_but_offsets() -> None:
    moved = collate([sample_of(1), sample_of(2)]).to(torch.device("meta"))
    assert isinstance(moved, Batch)
    assert moved.offsets.device.type == "cpu"
    assert {moved.images.device.type, moved.masks.device.type, moved.candidates.device.type} == {"meta"}
    assert {moved.input_ids.device.type, moved.attention_mask.device.type} == {"meta"}


def test_every_expression__all_in_order(refshapes: ReferDataset) -> None:
    refs = refshapes.refs_of("train")
    keys = every_expression(refs)
    assert keys == sorted(set(keys))
    assert Counter(index for index, _ in keys) == {i: len(ref.expressions) for i, ref in enumerate(refs)}


def test_training_plan__same_seed_same_plan(refshapes: ReferDataset) -> None:
    refs = refshapes.refs_of("train")
    plan = training_plan(refs, 4, 30, seed=1)
    assert plan == training_plan(refs, 4, 30, seed=1)
    assert plan != training_plan(refs, 4, 30, seed=2)
    assert [len(batch) for batch in plan] == [4] * 30


@pytest.mark.parametrize("batch_size", [1, 5, 7])
def test_training_plan__every_ref_once_a_pass(refshapes: ReferDataset, batch_size: int) -> None:
    refs = refshapes.refs_of("train")[:12]
    keys = [key for batch in training_plan(refs, batch_size, 50, seed=0) for key in batch]
    passes = [keys[start : start + 12] for start in range(0, len(keys) - 11, 12)]
    assert len(passes) >= 4
    for keys_of_pass in passes:
        assert sorted(index for index, _ in keys_of_pass) == list(range(12))
    assert len({tuple(index for index, _ in keys_of_pass) for keys_of_pass in passes}) == len(passes)


def test_training_plan__draws_among_all_expressions(refshapes: ReferDataset) -> None:
    refs = [ref for ref in refshapes.refs_of("train") if len(ref.expressions) > 1][:2]
    drawn = {key for batch in training_plan(refs, 2, 60, seed=0) for key in batch}
    assert drawn == set(every_expression(refs))


def test_training_plan__a_longer_one_begins_alike(refshapes: ReferDataset) -> None:
    refs = refshapes.refs_of("train")
    whole = training_plan(refs, 4, 40, seed=0)
    assert training_plan(refs, 4, 25, seed=0) == whole[:25]


def test_training_plan__more_samples_a_step_than_refs(refshapes: ReferDataset) -> None:
    (batch,) = training_plan(refshapes.refs_of("train")[:2], 5, 1, seed=0)
    assert len(batch) == 5
    assert {index for index, _ in batch} == {0, 1}


def test_load_batches__reads_in_the_order_given(with_candidates: RefSamples) -> None:
    keys = [[(3, 0), (0, 0)], [(1, 0)]]
    first, second = load_batches(with_candidates, keys, num_workers=0)
    assert (len(first), len(second)) == (2, 1)
    for row, key in enumerate(keys[0]):
        low, high = first.offsets[row : row + 2].tolist()
        found = Sample(
            image=first.images[row],
            mask=first.masks[row],
            input_ids=first.input_ids[row],
            attention_mask=first.attention_mask[row],
            candidates=first.candidates[low:high],
        )
        assert_same(found, with_candidates[key])


def test_load_batches__no_batches(with_candidates: RefSamples) -> None:
    assert list(load_batches(with_candidates, [], num_workers=0)) == []


def test_load_batches__leaves_torchs_generator_alone(with_candidates: RefSamples) -> None:
    before = torch.get_rng_state()
    list(load_batches(with_candidates, [[(0, 0)]], num_workers=0))
    assert torch.equal(torch.get_rng_state(), before)
