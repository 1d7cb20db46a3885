import dataclasses
from collections import Counter
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semires.cache.views import CandidateView
from semires.stages.data import annotations as annotations_module
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
    training_plan,
)

SIZE = 96
BYTES = SIZE * SIZE // 8


def sample_of(num_candidates: int, value: int = 0) -> Sample:
    return Sample(
        ref_id=10 * value,
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


@pytest.fixture
def num_expressions(refshapes: ReferDataset) -> NDArray[np.int64]:
    return np.array([len(ref.expressions) for ref in refshapes.refs_of("train")])


def test_ref_samples__a_sample_is_the_ref_at_training_size(
    refshapes: ReferDataset, tokenizer: Tokenizer, with_candidates: RefSamples, viewed_store: Path
) -> None:
    refs = refshapes.refs_of("train")
    index = next(i for i, ref in enumerate(refs) if len(ref.expressions) > 1)
    ref = refs[index]
    sample = with_candidates[index, 1]
    assert sample.ref_id == ref.ref_id
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
    reads: Counter[Path] = Counter()
    load = annotations_module.load_image_of_size

    def counted(path: Path, size: tuple[int, int]) -> object:
        reads[path] += 1
        return load(path, size)

    monkeypatch.setattr(annotations_module, "load_image_of_size", counted)
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


def test_ref_samples__know_their_refs(refshapes: ReferDataset, with_candidates: RefSamples) -> None:
    refs = refshapes.refs_of("train")
    assert len(with_candidates) == len(refs)
    assert with_candidates.ref_ids.tolist() == [ref.ref_id for ref in refs]
    assert with_candidates.num_expressions.tolist() == [len(ref.expressions) for ref in refs]


def test_ref_samples__send_no_annotations_to_a_process(refshapes: ReferDataset, tokenizer: Tokenizer) -> None:
    # As multiprocessing sends them to a spawned process: the number of expressions of each ref is all that grows.
    refs = refshapes.refs_of("train")
    few, many = (
        len(ForkingPickler.dumps(RefSamples(refshapes, some, tokenizer, SIZE))) for some in (refs[:1], refs[:33])
    )
    assert many - few < 32 * 8 + 100


@pytest.mark.parametrize("counts", [[2, 0, 3], [0, 0], [0, 4], [1]])
def test_collate__offsets_count_candidates(counts: list[int]) -> None:
    batch = collate([sample_of(count, value) for value, count in enumerate(counts)])
    assert len(batch) == len(counts)
    assert batch.images.shape == (len(counts), 3, 4, 4)
    assert batch.masks.dtype == torch.bool
    assert batch.offsets.dtype == torch.int64
    assert batch.offsets.tolist() == [sum(counts[:n]) for n in range(len(counts) + 1)]
    assert batch.candidates.shape == (sum(counts), 2)
    assert batch.ref_ids.dtype == torch.int64
    assert batch.ref_ids.tolist() == [10 * value for value in range(len(counts))]
    for value in range(len(counts)):
        low, high = batch.offsets[value : value + 2].tolist()
        assert (batch.candidates[low:high] == value).all()


def test_batch_to__moves_all_but_what_the_cpu_needs() -> None:
    moved = collate([sample_of(1), sample_of(2)]).to(torch.device("meta"))
    assert isinstance(moved, Batch)
    assert {moved.offsets.device.type, moved.ref_ids.device.type} == {"cpu"}
    assert {moved.images.device.type, moved.masks.device.type, moved.candidates.device.type} == {"meta"}
    assert {moved.input_ids.device.type, moved.attention_mask.device.type} == {"meta"}


def test_every_expression__all_in_order(num_expressions: NDArray[np.int64]) -> None:
    keys = every_expression(num_expressions)
    assert keys.dtype == np.int64
    assert keys.tolist() == [[index, n] for index, count in enumerate(num_expressions) for n in range(count)]


def plain_plan(num_expressions: NDArray[np.int64], batch_size: int, num_steps: int, seed: int) -> list[list[list[int]]]:
    """As the first version drew it, one by one; runs begun with it go on."""
    rng = np.random.default_rng(seed)
    keys: list[list[int]] = []
    while len(keys) < num_steps * batch_size:
        for index in rng.permutation(len(num_expressions)).tolist():
            keys.append([index, int(rng.integers(num_expressions[index]))])
    return [keys[step * batch_size : (step + 1) * batch_size] for step in range(num_steps)]


@pytest.mark.parametrize(("most", "batch_size", "num_steps"), [(1, 4, 9), (3, 1, 50), (5, 7, 40), (9, 100, 3)])
def test_training_plan__bit_for_bit_as_drawn_one_by_one(most: int, batch_size: int, num_steps: int) -> None:
    for seed in range(5):
        num_expressions = np.random.default_rng(seed).integers(1, most + 1, 37)
        plan = training_plan(num_expressions, batch_size, num_steps, seed)
        assert plan.dtype == np.int64
        assert plan.tolist() == plain_plan(num_expressions, batch_size, num_steps, seed)


def test_training_plan__same_seed_same_plan(num_expressions: NDArray[np.int64]) -> None:
    plan = training_plan(num_expressions, 4, 30, seed=1)
    assert plan.shape == (30, 4, 2)
    assert np.array_equal(plan, training_plan(num_expressions, 4, 30, seed=1))
    assert not np.array_equal(plan, training_plan(num_expressions, 4, 30, seed=2))


@pytest.mark.parametrize("batch_size", [1, 5, 7])
def test_training_plan__every_ref_once_a_pass(num_expressions: NDArray[np.int64], batch_size: int) -> None:
    keys = training_plan(num_expressions[:12], batch_size, 50, seed=0).reshape(-1, 2)
    passes = [keys[start : start + 12, 0].tolist() for start in range(0, len(keys) - 11, 12)]
    assert len(passes) >= 4
    for indices in passes:
        assert sorted(indices) == list(range(12))
    assert len({tuple(indices) for indices in passes}) == len(passes)


def test_training_plan__draws_among_all_expressions(num_expressions: NDArray[np.int64]) -> None:
    several = num_expressions[num_expressions > 1][:2]
    drawn = training_plan(several, 2, 60, seed=0).reshape(-1, 2)
    assert sorted(set(map(tuple, drawn.tolist()))) == list(map(tuple, every_expression(several).tolist()))


def test_training_plan__a_longer_one_begins_alike(num_expressions: NDArray[np.int64]) -> None:
    whole = training_plan(num_expressions, 4, 40, seed=0)
    assert np.array_equal(training_plan(num_expressions, 4, 25, seed=0), whole[:25])


def test_training_plan__more_samples_a_step_than_refs(num_expressions: NDArray[np.int64]) -> None:
    (batch,) = training_plan(num_expressions[:2], 5, 1, seed=0)
    assert len(batch) == 5
    assert set(batch[:, 0].tolist()) == {0, 1}
