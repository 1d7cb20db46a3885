"""What a training learns from, and what it leaves; how it stops and goes on is in test_trainer__stopping.py."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from semires.stages.train import trainer as trainer_module
from semires.stages.train.matching import MatchConfig
from semires.stages.train.metrics import SegmentationScores
from semires.stages.train.models.normalization import normalize
from semires.stages.train.reading.samples import Batch, RefSamples
from semires.stages.train.reading.sampling import every_expression
from semires.stages.train.trainer import Trainer
from semires.stages.train.views import ViewConfig

SIZE = 96
CPU = torch.device("cpu")
MakeTrainer = Callable[..., Trainer]
MetricsOf = Callable[[Trainer], list[dict[str, Any]]]
NO_VIEWS = ViewConfig(blur_probability=0.0, jitter_probability=0.0)
# Any candidate that a label touches is united: with this every sample that has candidates is refined.
TAKE_ALL = MatchConfig(strategy="cpi", inter1=0.0, inter2=0.0)


class TurnedSamples(RefSamples):
    """Samples whose true masks are turned inside out."""

    def _mask(self, ref: Any) -> Tensor:
        return ~super()._mask(ref)


def batches_of(trainer: Trainer) -> tuple[Iterator[Batch], Iterator[Batch | None]]:
    return trainer.data.batches(trainer.config, trainer.plan, trainer.step, trainer.ranks, CPU)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def trained(trainer: Trainer) -> Trainer:
    trainer.train()
    return trainer


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_num_steps__epochs_over_labeled_or_unlabeled_refs(make_trainer: MakeTrainer) -> None:
    # 4 labeled refs x 3 epochs / 5 a step; 8 unlabeled refs x 2 epochs / 4 a step; never less than 1.
    assert make_trainer("a", method="supervised", burn_in_epochs=3, batch_burn_in=5).num_steps == 2
    assert make_trainer("b", mutual_epochs=2, batch_unlabeled=4).num_steps == 4
    assert make_trainer("c", mutual_epochs=1, batch_unlabeled=100).num_steps == 1


def test_train__loss_falls_on_two_refs_seen_over_and_over(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(
        method="supervised",
        num_labeled=2,
        margin=0.0,
        burn_in_epochs=30,
        batch_burn_in=2,
        num_evaluations=4,
        learning_rate=3e-3,
        views=NO_VIEWS,
    )
    trainer.train()
    losses = [line["loss_sup"] for line in trainer.folder.read_metrics()]
    assert len(losses) == 4
    assert losses[-1] == min(losses)
    assert losses[-1] < 0.4 * losses[0]


def test_train__writes_what_evaluation_and_resuming_need(make_trainer: MakeTrainer) -> None:
    seen: list[tuple[str, int, int]] = []
    trainer = make_trainer(method="semires", on_progress=lambda *args: seen.append(args))
    result = trainer.train()
    num_val = len(every_expression(trainer.data.val.num_expressions))
    assert [call for call in seen if call[0] == "semires"] == [("semires", 1, 2), ("semires", 2, 2)]
    assert [call for call in seen if call[0] == "evaluation"] == [("evaluation", num_val, num_val)] * 2
    assert trainer.folder.read_result() == result
    assert (result["steps"], result["num_steps"], result["stopped_early"]) == (2, 2, False)
    lines = trainer.folder.read_metrics()
    assert [(line["phase"], line["step"], line["num_steps"]) for line in lines] == [("mutual", 1, 2), ("mutual", 2, 2)]
    assert result["val_oiou"] == max(line["val"]["oiou"] for line in lines)
    assert all(line["val"]["num_samples"] == num_val for line in lines)
    assert {"loss_sup", "loss_unsup", "matched", "label_iou_before", "label_iou_after", "improved", "worsened"} <= {
        *lines[0]
    }
    assert not list(trainer.folder.path.glob("state*"))


def test_train__learning_rate_decays_to_nothing(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(method="supervised", num_evaluations=1)
    trainer.train()
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.0] * 4


def test_train__learning_rate_of_a_longer_schedule_ends_halfway(make_trainer: MakeTrainer) -> None:
    settings = {"mutual_schedule": 2.0, "learning_rate": 1e-3, "num_evaluations": 1}
    for method, last in (("supervised", 0.0), ("baseline", 1e-3 * 0.5**0.9)):  # only mutual learning has one
        trainer = trained(make_trainer(method, method=method, **settings))
        assert [group["lr"] for group in trainer.optimizer.param_groups] == [pytest.approx(last)] * 4


def test_train__plain_mean_of_mutual_losses(make_trainer: MakeTrainer) -> None:
    # Everything is labeled foreground, also the labeled refs: each plain mean is 1.1 times the weighted one.
    lines = {}
    for mean in ("weighted", "plain"):
        trainer = make_trainer(
            mean, method="semires", pwa=False, with_candidates=False, mutual_loss_mean=mean, batch_unlabeled=8
        )
        for index, ref_id in enumerate(trainer.data.labeled.ref_ids.tolist()):
            trainer.data.labeled._masks[ref_id] = torch.ones_like(trainer.data.labeled[index, 0].mask)
        trainer.train()
        lines[mean] = trainer.folder.read_metrics()[0]
    for name in ("loss_sup", "loss_unsup"):
        assert lines["plain"][name] == pytest.approx(1.1 * lines["weighted"][name], abs=2e-5)


def test_train_step__teacher_follows_equation_five(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(method="semires", alpha=0.75)
    assert trainer.teacher is not None
    assert same(weights_of(trainer.teacher.model), weights_of(trainer.model))  # eq. 2
    labeled, unlabeled = batches_of(trainer)
    for batch_l, batch_u in zip(labeled, unlabeled, strict=True):
        before = weights_of(trainer.teacher.model)
        trainer.train_step(batch_l, batch_u)
        student = trainer.model.state_dict()
        for name, found in trainer.teacher.model.state_dict().items():
            if found.is_floating_point():
                torch.testing.assert_close(found, 0.75 * before[name] + 0.25 * student[name])
    assert not same(weights_of(trainer.teacher.model), weights_of(trainer.model))


def test_train__hidden_masks_never_reach_the_weights(make_trainer: MakeTrainer) -> None:
    true, turned = (
        trained(make_trainer(of.__name__, method="semires", unlabeled_class=of)) for of in (RefSamples, TurnedSamples)
    )
    assert same(weights_of(true.model), weights_of(turned.model))
    assert same(weights_of(true.evaluated), weights_of(turned.evaluated))
    # They were measured against other masks all the same, so the two runs did have different ones.
    measured = [[line["label_iou_before"] for line in trainer.folder.read_metrics()] for trainer in (true, turned)]
    assert measured[0] != measured[1]


def test_train__labeled_masks_do_reach_the_weights(make_trainer: MakeTrainer) -> None:
    true = trained(make_trainer("true", method="semires"))
    turned = make_trainer("turned", method="semires")
    samples = turned.data.labeled
    for index, ref_id in enumerate(samples.ref_ids.tolist()):
        samples._masks[ref_id] = ~samples[index, 0].mask
    trained(turned)
    assert not same(weights_of(true.model), weights_of(turned.model))


def test_train__candidates_reach_the_weights_of_semires_only(make_trainer: MakeTrainer) -> None:
    weights = {}
    for method in ("baseline", "semires"):
        for with_candidates in (False, True):
            trainer = make_trainer(
                f"{method}-{with_candidates}",
                method=method,
                match=TAKE_ALL,
                pwa=False,
                with_candidates=with_candidates,
            )
            trainer.train()
            matched = [line["matched"] for line in trainer.folder.read_metrics()]
            refines = method == "semires" and with_candidates
            assert matched == ([1.0, 1.0] if refines else [0.0, 0.0])
            weights[method, with_candidates] = weights_of(trainer.model)
    # Nothing to match and no PWA: SemiRES is the baseline.
    assert same(weights["semires", False], weights["baseline", False])
    assert same(weights["baseline", True], weights["baseline", False])
    assert not same(weights["semires", True], weights["baseline", True])


def test_train__pwa_weights_unmatched_labels(make_trainer: MakeTrainer) -> None:
    on, off = (
        trained(make_trainer(f"{pwa}", method="semires", pwa=pwa, with_candidates=False)) for pwa in (True, False)
    )
    assert not same(weights_of(on.model), weights_of(off.model))


def test_train__refinement_is_measured_by_the_hidden_masks(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(method="semires", match=TAKE_ALL, num_evaluations=1)
    trainer.train()
    (line,) = trainer.folder.read_metrics()
    # The label is the whole image, the refined one the union of all objects: closer to every object.
    assert line["improved"] == 1.0
    assert line["worsened"] == 0.0
    assert line["label_iou_after"] > line["label_iou_before"] > 0.0


@pytest.mark.parametrize("name", ["lambda_sup", "lambda_unsup"])
def test_train__a_loss_without_weight_is_not_learnt_from(make_trainer: MakeTrainer, name: str) -> None:
    # With neither loss nothing is learnt but batch norm's statistics; with either one something is.
    neither = {"lambda_sup": 0.0, "lambda_unsup": 0.0, "weight_decay": 0.0}
    still = make_trainer("still", method="semires", match=TAKE_ALL, **neither)
    before = [parameter.clone() for parameter in still.model.parameters()]
    trained(still)
    assert all(torch.equal(a, b) for a, b in zip(before, still.model.parameters(), strict=True))
    moved = trained(make_trainer("moved", method="semires", match=TAKE_ALL, **(neither | {name: 1.0})))
    assert any(not torch.equal(a, b) for a, b in zip(before, moved.model.parameters(), strict=True))


def test_train__same_settings_same_run(make_trainer: MakeTrainer, metrics_of: MetricsOf) -> None:
    first, second, other = (trained(make_trainer(f"{n}", seed=seed)) for n, seed in enumerate((0, 0, 1)))
    assert same(weights_of(first.model), weights_of(second.model))
    assert metrics_of(first) == metrics_of(second)
    assert not same(weights_of(first.model), weights_of(other.model))


@pytest.mark.parametrize("method", ["supervised", "baseline"])
@pytest.mark.parametrize("blur_labeled", [False, True])
def test_train_step__blur_of_labeled_images(make_trainer: MakeTrainer, method: str, blur_labeled: bool) -> None:
    # Every image that may be blurred is; the strong view is the weak one.
    views = ViewConfig(blur_probability=1.0, jitter_probability=0.0)
    trainer = make_trainer(method=method, blur_labeled=blur_labeled, views=views)
    seen: list[Tensor] = []
    trainer.model.register_forward_pre_hook(lambda model, args: seen.append(args[0]))
    batch_l, batch_u = (next(batches) for batches in batches_of(trainer))
    trainer.train_step(batch_l, batch_u)
    parts = [batch.images for batch in (batch_l, batch_u) if batch is not None]
    (images,) = seen
    is_plain = (images == normalize(torch.cat(parts) / 255)).flatten(1).all(dim=1)
    assert is_plain.tolist() == [not blur_labeled] * len(batch_l) + [False] * (len(images) - len(batch_l))


@pytest.mark.parametrize(
    ("method", "dropout_burn_in", "expected"),
    [("supervised", False, False), ("supervised", True, True), ("baseline", False, True)],
)
def test_train__dropout_of_the_text_modules(
    make_trainer: MakeTrainer, method: str, dropout_burn_in: bool, expected: bool
) -> None:
    trainer = make_trainer(method=method, text_dropout_burn_in=dropout_burn_in, burn_in_epochs=4, num_evaluations=2)
    (text,) = trainer.model.text_modules()
    modes: list[tuple[bool, bool, bool]] = []

    def note(model: nn.Module, args: Any) -> None:
        modes.append((model.training, text.training, all(m.training == text.training for m in text.modules())))

    trainer.model.register_forward_pre_hook(note)
    trainer.train()
    # Also in the steps after an evaluation, and nowhere in an evaluation.
    assert [mode for mode in modes if mode[0]] == [(True, expected, True)] * trainer.num_steps
    if method == "supervised":
        assert {mode for mode in modes if not mode[0]} == {(False, False, True)}
    else:
        assert trainer.teacher is not None
        assert not any(module.training for module in trainer.teacher.model.modules())


@pytest.mark.parametrize("method", ["supervised", "semires"])
def test_train__keeps_the_weights_of_the_best_evaluation(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    scores = iter([10.0, 30.0, 20.0])
    evaluated: list[dict[str, Tensor]] = []

    def evaluate(model: nn.Module, *args: Any, **kwargs: Any) -> SegmentationScores:
        evaluated.append(weights_of(model))
        return SegmentationScores(oiou=next(scores), miou=0.0, precision={0.5: 0.0}, num_samples=1)

    monkeypatch.setattr(trainer_module, "evaluate", evaluate)
    trainer = make_trainer(method=method, burn_in_epochs=3, mutual_epochs=2, num_evaluations=3)
    result = trainer.train()
    assert result["val_oiou"] == 30.0
    best = load_file(trainer.folder.path / "best.safetensors")
    assert same(best, evaluated[1])
    assert not same(best, evaluated[2])
    is_student = same(evaluated[2], weights_of(trainer.model))
    assert is_student == (method == "supervised")  # else the teacher was evaluated


def test_train_step__bf16_learns_too(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(method="semires", precision="bf16")
    before = weights_of(trainer.model)
    labeled, unlabeled = batches_of(trainer)
    trainer.train_step(next(labeled), next(unlabeled))
    assert all(tensor.isfinite().all() for tensor in trainer.model.parameters())
    assert not same(before, weights_of(trainer.model))
    assert {tensor.dtype for tensor in trainer.model.parameters()} == {torch.float32}
