"""A study from a run's folder to its scores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semires.cache.views import CandidateView
from semires.pipeline.audit import labels as labels_module
from semires.pipeline.audit import unlabeled as unlabeled_module
from semires.pipeline.audit.labels import LabelStudy, count_labels, study_labels
from semires.pipeline.audit.refinements import most_expressions, refinements
from semires.pipeline.audit.report import notes
from semires.pipeline.audit.unlabeled import whole_images
from semires.pipeline.paths import Paths
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.evaluation import measure
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
LABELED = [1, 2, 4, 5, 7, 8, 9, 11]  # of 12


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


class Pixelwise(nn.Module):
    """Logits of a pixel's colour and of the expression alone: what is computed beside it changes no bit."""

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        number = (input_ids * torch.arange(1, input_ids.shape[1] + 1)).sum(dim=1) % 3
        margin = images[torch.arange(len(images)), number] - 0.4 * number[:, None, None]
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def test_count_labels__batches_change_nothing(
    samples_of: Callable[..., RefSamples], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = samples_of(LABELED)
    chosen = refinements(TrainConfig(), 3)
    teacher = EmaTeacher(Pixelwise())

    def count(batch_size: int, at_once: int) -> list[Tensor]:
        monkeypatch.setattr(labels_module, "BATCH_SIZE", at_once)
        seen: list[tuple[int, int]] = []
        counts, areas = count_labels(
            samples,
            whole_images(samples, most_expressions(chosen), batch_size),
            teacher,
            chosen,
            "fp32",
            CPU,
            lambda what, done, total, note="": seen.append((done, total)),
        )
        assert seen[-1] == (len(samples), len(samples))
        assert sorted(seen) == seen
        return [areas, *(values for found in counts for values in vars(found).values())]

    expected = count(1, 5)
    assert not torch.equal(expected[1], expected[6])  # the second refinement's labels are others
    for batch_size, at_once in ((7, 16), (1000, 3)):
        for values, wanted in zip(count(batch_size, at_once), expected, strict=True):
            assert torch.equal(values, wanted)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished burn-in of random weights that calls about half of the pixels the referent."""
    config = TrainConfig(split="refshapes", model="nano", method="supervised", labeled=0.25, precision="fp32")
    folder = RunFolder(tmp_path / "run")
    folder.start(config, LABELED)
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())
    folder.finish({"best_oiou": 0.0})
    return folder.path


@pytest.fixture
def study(
    run: Path, refshapes_root: Path, refshapes: ReferDataset, studied_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., LabelStudy]:
    monkeypatch.setattr(unlabeled_module, "load_dataset", lambda paths, split, on_progress: refshapes)
    return lambda **options: study_labels(run, Paths(data=refshapes_root), CPU, ignore, store=studied_store, **options)


def test_study_labels__the_teachers_own_are_what_evaluation_measures(
    study: Callable[..., LabelStudy], run: Path, refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(settings | {"text": "sent", "eval_text": "raw"}))
    read: list[Any] = []
    monkeypatch.setattr(
        unlabeled_module, "RefSamples", lambda *rest, text: read.append(text) or RefSamples(*rest, text=text)
    )
    found = study()
    assert read == ["sent"]
    refs = [ref for ref in refshapes.refs_of("train") if ref.image_id not in LABELED]
    _, model = RunFolder(run).load_model()
    samples = RefSamples(refshapes, refs, model.tokenizer, model.image_size)
    counts = measure(model, samples, CPU).counts
    firsts = torch.from_numpy(np.cumsum(samples.num_expressions) - samples.num_expressions)
    intersections, unions = counts.intersections[firsts].double(), counts.unions[firsts].double()
    own = found.rows[0].scores
    assert found.rows[0].refinement.name == "teacher alone"
    assert own.by_group["all"].miou == pytest.approx(100 * float((intersections / unions).mean()), rel=1e-4)
    assert own.by_group["all"].oiou == pytest.approx(100 * float(intersections.sum() / unions.sum()), rel=1e-4)
    assert (own.positive, own.negative, own.none) == (0, 0, len(refs))

    assert (found.num_refs, found.num_images) == (len(refs), len({ref.image_id for ref in refs}))
    assert found.num_expressions == sum(min(2, len(ref.expressions)) for ref in refs)
    assert (found.split, found.method, found.text, found.precision) == ("refshapes", "supervised", "sent", "fp32")
    assert found.image_size == model.image_size


def test_study_labels__groups_and_counts_add_up(study: Callable[..., LabelStudy], refshapes: ReferDataset) -> None:
    found = study(expressions=None)
    composites = {"house", "tree", "car", "mushroom"}
    refs = [ref for ref in refshapes.refs_of("train") if ref.image_id not in LABELED]
    num_composites = sum(refshapes.category(ref) in composites for ref in refs)
    assert found.num_expressions == sum(len(ref.expressions) for ref in refs)
    for row in found.rows:
        scores = row.scores
        assert scores.positive + scores.negative + scores.none == len(refs)
        assert (scores.matched is None) == (row.refinement.match is None)
        num = {name: group.num_refs for name, group in scores.by_group.items()}
        assert list(num) == ["all", "small", "medium", "large", "simple", "composite"]
        assert (
            num["all"] == len(refs) == num["small"] + num["medium"] + num["large"] == num["simple"] + num["composite"]
        )
        assert num["composite"] == num_composites
        assert max(num[name] for name in ("small", "medium", "large")) <= len(refs) / 3 + 2
    # Of SAMs without faults the best candidate is the object itself.
    assert found.rows[-1].refinement.is_oracle
    assert found.rows[-1].scores.by_group["all"].miou == 100.0
    assert found.rows[-1].scores.two_objects == 0
    low, high = found.size_limits
    areas = sorted(100 * refshapes.mask(ref).mean() for ref in refs)
    assert areas[0] < low < high < areas[-1]


def test_count_labels__of_the_refs_whose_masks_are_known(
    refshapes: ReferDataset, without_masks: Callable[..., ReferDataset], studied_store: Path
) -> None:
    chosen = refinements(TrainConfig(), 2)
    ids = [ref.ref_id for ref in refshapes.refs_of("train") if ref.image_id not in LABELED]
    rows = torch.tensor([number % 3 != 0 for number in range(len(ids))])
    found = []
    for dataset in (refshapes, without_masks(ids[::3])):
        refs = [ref for ref in dataset.refs_of("train") if ref.image_id not in LABELED]
        tokenizer = Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt")
        samples = RefSamples(dataset, refs, tokenizer, 96, CandidateView(studied_store, 96))
        plan = whole_images(samples, most_expressions(chosen), 5)
        found.append(count_labels(samples, plan, EmaTeacher(Pixelwise()), chosen, "fp32", CPU, ignore))
    (whole, areas), (some, some_areas) = found
    assert torch.equal(some_areas, areas[rows])
    for one, other in zip(some[:-1], whole[:-1], strict=True):  # the oracle has fewer objects to match
        assert torch.equal(one.intersections, other.intersections[rows])
        assert torch.equal(one.unions, other.unions[rows])
        assert torch.equal(one.matched, other.matched[rows])
        assert torch.equal(one.covers_own, other.covers_own[rows])


def test_study_labels__says_how_many_masks_nobody_knows(
    study: Callable[..., LabelStudy],
    refshapes: ReferDataset,
    without_masks: Callable[..., ReferDataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refs = [ref for ref in refshapes.refs_of("train") if ref.image_id not in LABELED]
    unknown = [ref.ref_id for ref in refs if ref.image_id == refs[0].image_id or ref == refs[-1]]
    own = without_masks(unknown)
    monkeypatch.setattr(unlabeled_module, "load_dataset", lambda paths, split, on_progress: own)
    found = study()
    assert (found.num_refs, found.without_mask) == (len(refs) - len(unknown), len(unknown))
    assert found.num_images == len({ref.image_id for ref in refs}) - 1
    for row in found.rows:
        assert row.scores.positive + row.scores.negative + row.scores.none == found.num_refs
        assert row.scores.by_group["all"].num_refs == found.num_refs
    assert f"without {len(unknown)} unlabeled refs whose masks nobody knows" in notes(found)

    own = without_masks([ref.ref_id for ref in refs])
    with pytest.raises(InputError, match=rf"whose masks are known, found none of {len(refs)}: train with a smaller"):
        study()
