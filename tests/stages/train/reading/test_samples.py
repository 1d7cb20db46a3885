import dataclasses
from collections import Counter
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch

from semires.cache.views import CandidateView
from semires.stages.data import annotations as annotations_module
from semires.stages.data.images import resize_image
from semires.stages.data.masks import resize_mask
from semires.stages.data.refer import ReferDataset
from semires.stages.train.matching import unpack_bits
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.reading import samples as samples_module
from semires.stages.train.reading.samples import Batch, RefSamples, Sample, collate

SIZE = 96
BYTES = SIZE * SIZE // 8


def sample_of(num_candidates: int, value: int = 0) -> Sample:
    return Sample(
        ref_id=10 * value,
        image_id=20 * value,
        ann_id=30 * value,
        image=torch.full((3, 4, 4), value, dtype=torch.uint8),
        mask=torch.full((4, 4), bool(value)),
        has_mask=value != 1,
        input_ids=torch.full((5,), value),
        attention_mask=torch.ones(5, dtype=torch.int64),
        other_input_ids=torch.full((value, 5), value),
        other_attention_mask=torch.ones(value, 5, dtype=torch.int64),
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
    assert (sample.image_id, sample.ann_id) == (ref.image_id, ref.ann_id)
    assert torch.equal(sample.input_ids, tokenizer([ref.expressions[1]])[0][0])
    assert len(sample.other_input_ids) == len(sample.other_attention_mask) == 0
    assert torch.equal(sample.attention_mask, tokenizer([ref.expressions[1]])[1][0])
    assert sample.candidates.dtype == torch.uint8
    assert torch.equal(sample.candidates, torch.from_numpy(CandidateView(viewed_store, SIZE)[ref.image_id]))


def test_ref_samples__candidates_hold_the_referents_true_mask(with_candidates: RefSamples) -> None:
    # The shared store holds every object's true mask: one candidate of each sample is the referent.
    for index in range(len(with_candidates)):
        sample = with_candidates[index, 0]
        assert (unpack_bits(sample.candidates, SIZE) == sample.mask).all(dim=2).all(dim=1).any()


def test_ref_samples__further_expressions(
    refshapes: ReferDataset, tokenizer: Tokenizer, with_candidates: RefSamples
) -> None:
    refs = refshapes.refs_of("train")
    index = next(i for i, ref in enumerate(refs) if len(ref.expressions) > 2)
    sample = with_candidates[index, 2, 0, -1, 1, -1]
    texts = [refs[index].expressions[number] for number in (2, 0, 1)]
    input_ids, attention_mask = tokenizer(texts)
    assert torch.equal(sample.input_ids, input_ids[0])
    assert torch.equal(sample.other_input_ids, input_ids[1:])
    assert torch.equal(sample.other_attention_mask, attention_mask[1:])


def test_ref_samples__a_batch_of_none(with_candidates: RefSamples) -> None:
    nothing, one = with_candidates.batch([]), with_candidates.batch([(0, 0, 0)])
    assert len(nothing) == 0
    assert nothing.offsets.tolist() == [0]
    for name, tensor in vars(one).items():
        if isinstance(tensor, torch.Tensor):
            assert getattr(nothing, name).shape[1:] == tensor.shape[1:]
            assert name == "offsets" or len(getattr(nothing, name)) == 0


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

    def counted(path: Path, size: tuple[int, int], *, upright: bool) -> object:
        reads[path] += 1
        return load(path, size, upright=upright)

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
    assert set(reads.values()) == {2}  # those of an image come in a row
    assert [len(not_kept._images), len(not_kept._masks), len(not_kept._candidates)] == [1, 1, 1]
    backwards = [not_kept[index, 0] for index in (-1 % len(refs), 0, -1 % len(refs))]
    assert_same(backwards[0], backwards[2])
    assert sum(reads.values()) == 3 * len(reads)
    for found in (again, read):
        for one, other in zip(found, first, strict=True):
            assert_same(one, other)


def test_ref_samples__full_masks(refshapes: ReferDataset, tokenizer: Tokenizer) -> None:
    refs = refshapes.refs_of("train")[:3]
    samples = RefSamples(refshapes, refs, tokenizer, SIZE)
    for index, ref in enumerate(refs):
        assert np.array_equal(samples.full_mask(index), refshapes.mask(ref))


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
    assert batch.has_mask.tolist() == [value != 1 for value in range(len(counts))]
    assert batch.offsets.dtype == torch.int64
    assert batch.offsets.tolist() == [sum(counts[:n]) for n in range(len(counts) + 1)]
    assert batch.candidates.shape == (sum(counts), 2)
    assert batch.ref_ids.dtype == torch.int64
    assert batch.ref_ids.tolist() == [10 * value for value in range(len(counts))]
    assert batch.image_ids.tolist() == [20 * value for value in range(len(counts))]
    assert batch.ann_ids.tolist() == [30 * value for value in range(len(counts))]
    assert batch.other_of.tolist() == [value for value in range(len(counts)) for _ in range(value)]
    assert batch.other_input_ids.tolist() == [[value] * 5 for value in batch.other_of.tolist()]
    for value in range(len(counts)):
        low, high = batch.offsets[value : value + 2].tolist()
        assert (batch.candidates[low:high] == value).all()


def test_batch_to__moves_all_but_what_the_cpu_needs() -> None:
    moved = collate([sample_of(1), sample_of(2)]).to(torch.device("meta"))
    assert isinstance(moved, Batch)
    on_cpu = (moved.offsets, moved.ref_ids, moved.image_ids, moved.ann_ids, moved.other_of)
    assert {tensor.device.type for tensor in on_cpu} == {"cpu"}
    assert {moved.other_input_ids.device.type, moved.other_attention_mask.device.type} == {"meta"}
    assert {moved.images.device.type, moved.masks.device.type, moved.candidates.device.type} == {"meta"}
    assert {moved.input_ids.device.type, moved.attention_mask.device.type} == {"meta"}


@pytest.mark.parametrize("memory_limit", [0, samples_module.MEMORY_LIMIT])
def test_ref_samples__masks_that_are_not_known(
    refshapes: ReferDataset,
    without_masks: Callable[..., ReferDataset],
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    memory_limit: int,
) -> None:
    monkeypatch.setattr(samples_module, "MEMORY_LIMIT", memory_limit)
    ids = [ref.ref_id for ref in refshapes.refs_of("train")]
    own = without_masks(ids[1:3])
    samples = RefSamples(own, own.refs_of("train"), tokenizer, SIZE)
    known = RefSamples(refshapes, refshapes.refs_of("train"), tokenizer, SIZE).batch([(n, 0) for n in range(4)])
    for _ in range(2):
        batch = samples.batch([(n, 0) for n in range(4)])
        assert batch.has_mask.tolist() == [True, False, False, True]
        assert not batch.masks[1:3].any()
        assert torch.equal(batch.masks[[0, 3]], known.masks[[0, 3]])
        assert torch.equal(batch.images, known.images)
    assert known.has_mask.tolist() == [True] * 4
    assert samples.batch([]).has_mask.dtype == torch.bool
