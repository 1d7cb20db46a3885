"""What the training loop must do, whatever the model learns."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from semires.cache.views import CandidateView
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.processes.ranks import Ranks
from semires.stages.train import trainer as trainer_module
from semires.stages.train.config import UNSAID, TrainConfig
from semires.stages.train.engine.states import StateFiles
from semires.stages.train.loading import load_batches
from semires.stages.train.matching import MatchConfig
from semires.stages.train.metrics import SegmentationScores
from semires.stages.train.models.normalization import normalize
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.samples import Batch, RefSamples
from semires.stages.train.sampling import every_expression
from semires.stages.train.step import TrainStep
from semires.stages.train.train_data import TrainData
from semires.stages.train.trainer import Trainer
from semires.stages.train.views import ViewConfig

SIZE = 96
TIMES = ("seconds", "samples_per_second", "data_wait")
CPU = torch.device("cpu")
MakeTrainer = Callable[..., Trainer]
NO_VIEWS = ViewConfig(blur_probability=0.0, jitter_probability=0.0)
# Any candidate that a label touches is united: with this every sample that has candidates is refined.
TAKE_ALL = MatchConfig(strategy="cpi", inter1=0.0, inter2=0.0)


class Stopped(Exception):
    """Stands for a kill."""


class TurnedSamples(RefSamples):
    """Samples whose true masks are turned inside out."""

    def _mask(self, ref: Any) -> Tensor:
        return ~super()._mask(ref)


@pytest.fixture
def make_trainer(
    tmp_path: Path,
    refshapes: ReferDataset,
    tokenizer: Tokenizer,
    viewed_store: Path,
    nano_config: Callable[..., TrainConfig],
) -> MakeTrainer:
    """Trainers on 4 labeled, 8 unlabeled and 2 val refs, all of the same weights, that call everything foreground.

    Making one seeds torch, as `train_run` does: train it before the next is made.
    """

    def make(
        name: str = "run",
        *,
        unlabeled_class: type[RefSamples] = RefSamples,
        with_candidates: bool = True,
        num_labeled: int = 4,
        margin: float = 3.0,
        on_progress: Any = None,
        say: Any = None,
        **changes: Any,
    ) -> Trainer:
        config = nano_config(**changes)
        torch.manual_seed(0)
        model = config.build_model(pretrained=False)
        with torch.no_grad():
            assert model.decoder.classify.bias is not None
            model.decoder.classify.bias.copy_(torch.tensor([-margin, margin]))
        refs = refshapes.refs_of("train")
        view = CandidateView(viewed_store, SIZE) if with_candidates else None
        unlabeled = unlabeled_class(refshapes, refs[-8:], tokenizer, SIZE, view)
        folder = RunFolder(tmp_path / name)
        folder.start(config, [1])
        data = TrainData(
            labeled=RefSamples(refshapes, refs[:num_labeled], tokenizer, SIZE),
            unlabeled=None if config.method == "supervised" else unlabeled,
            val=RefSamples(refshapes, refshapes.refs_of("val")[:2], tokenizer, SIZE),
        )
        return Trainer(config, model, data, folder, CPU, on_progress, say=say)

    return make


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


def metrics_of(trainer: Trainer) -> list[dict[str, Any]]:
    """The lines of the run without the seconds, which no two runs share."""
    return [{k: v for k, v in line.items() if k not in TIMES} for line in trainer.folder.read_metrics()]


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
    measured = [[line["label_iou_before"] for line in metrics_of(trainer)] for trainer in (true, turned)]
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
            matched = [line["matched"] for line in metrics_of(trainer)]
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
    (line,) = metrics_of(trainer)
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


def test_train__same_settings_same_run(make_trainer: MakeTrainer) -> None:
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


def test_train__a_run_begun_before_there_were_recipes_goes_on(make_trainer: MakeTrainer) -> None:
    younger = {*UNSAID, "patience", "mutual_schedule", "mutual_loss_mean"}
    settings = {"method": "supervised", "burn_in_epochs": 4, **UNSAID}
    whole = trained(make_trainer("whole", **settings))

    def stop(what: str, done: int, total: int) -> None:
        if (what, done) == ("supervised", 3):
            raise Stopped

    stopped = make_trainer("stopped", on_progress=stop, **settings)
    with pytest.raises(Stopped):
        stopped.train()
    # Its state was one file without a checksum, and of what it held these were called otherwise or not there.
    state = stopped.folder.states().load(print)
    assert state is not None
    stopped.folder.states().remove()
    path = stopped.folder.path / "config.json"
    values = {name: value for name, value in json.loads(path.read_text()).items() if name not in younger}
    path.write_text(json.dumps(values))
    for name in ("num_stale", "identity"):
        del state[name]
    (own,) = state.pop("ranks")
    state |= {"torch_rng": own["rng"]["torch"], "cuda_rng": None}
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = None
    torch.save(state, stopped.folder.path / "state.pt")

    found = stopped.folder.read_config()
    assert found == stopped.config
    again = make_trainer("stopped", **{name: getattr(found, name) for name in settings})
    again.train()
    assert same(weights_of(again.model), weights_of(whole.model))
    assert metrics_of(again) == metrics_of(whole)


@pytest.mark.parametrize("method", ["supervised", "semires"])
def test_train__goes_on_bit_identically(make_trainer: MakeTrainer, method: str) -> None:
    # 4 steps, checkpoints after 2 and 4. Stopped in step 1 all begins anew; after step 3 that one is done again; in the
    # last evaluation both steps since the checkpoint are.
    settings = {"method": method, "burn_in_epochs": 4, "mutual_epochs": 2, "match": TAKE_ALL}

    whole = trained(make_trainer("whole", **settings))
    assert whole.num_steps == 4
    steps: list[int] = []
    for stop_at in (1, 3, 4):

        def stop(what: str, done: int, total: int, stop_at: int = stop_at) -> None:
            steps.extend([done] if what == method else [])
            if steps[-1] == stop_at and what == ("evaluation" if stop_at == 4 else method):
                raise Stopped

        stopped = make_trainer("stopped", on_progress=stop, **settings)
        with pytest.raises(Stopped):
            stopped.train()
        assert not stopped.folder.is_finished
        assert (stopped.folder.states().load(print) is None) == (stop_at == 1)

    resumed = make_trainer("stopped", **settings)
    torch.manual_seed(123)  # another process has other random numbers
    found = resumed.train()
    assert found["val_oiou"] == whole.best_oiou
    assert same(weights_of(resumed.model), weights_of(whole.model))
    assert same(weights_of(resumed.evaluated), weights_of(whole.evaluated))
    assert metrics_of(resumed) == metrics_of(whole)
    best = "best.safetensors"
    assert (resumed.folder.path / best).read_bytes() == (whole.folder.path / best).read_bytes()


def test_train__stopped_between_the_last_checkpoint_and_the_result(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(method="supervised")
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", lambda self, result: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            trainer.train()
    expected = weights_of(trainer.model)
    resumed = make_trainer(method="supervised")
    result = resumed.train()
    assert resumed.folder.is_finished
    assert result["val_oiou"] == trainer.best_oiou
    assert same(weights_of(resumed.model), expected)


@pytest.fixture
def score_val(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets evaluations score what is given, in order; the last one stands for a kill."""

    def patch(*scores: float) -> None:
        pending = list(scores)

        def evaluate(*args: Any, **kwargs: Any) -> SegmentationScores:
            if not pending:
                raise Stopped
            return SegmentationScores(oiou=pending.pop(0), miou=0.0, precision={0.5: 0.0}, num_samples=1)

        monkeypatch.setattr(trainer_module, "evaluate", evaluate)

    return patch


@pytest.mark.parametrize(
    ("scores", "patience", "steps"),
    [
        ([5.0, 4.0, 6.0, 6.0, 5.0, 7.0], 2, 5),  # a gain is a higher score than any before; as high is none
        ([5.0, 4.0, 6.0, 6.0, 5.0, 7.0], 3, 6),
        ([5.0, 4.0, 6.0, 7.0, 6.0, 5.0], 2, 6),  # it ends there anyway
        ([5.0, 4.0, 6.0, 6.0, 5.0, 7.0], None, 6),
        ([5.0, 4.0], 1, 2),
    ],
)
def test_train__patience(
    make_trainer: MakeTrainer,
    score_val: Callable[..., None],
    scores: list[float],
    patience: int | None,
    steps: int,
) -> None:
    score_val(*scores)
    trainer = make_trainer(method="baseline", patience=patience, mutual_epochs=3, num_evaluations=6)
    result = trainer.train()
    assert (result["steps"], result["num_steps"], result["stopped_early"]) == (steps, 6, steps < 6)
    assert result["val_oiou"] == max(scores[:steps])
    assert trainer.folder.read_result() == result
    assert [line["step"] for line in metrics_of(trainer)] == [*range(1, steps + 1)]


def test_train__burn_in_has_no_patience(make_trainer: MakeTrainer, score_val: Callable[..., None]) -> None:
    score_val(5.0, 4.0, 3.0, 2.0)
    result = make_trainer(method="supervised", patience=1, burn_in_epochs=4, num_evaluations=4).train()
    assert (result["steps"], result["stopped_early"]) == (4, False)


@pytest.mark.parametrize("num_done", [1, 2, 3])
def test_train__patience_goes_on_where_it_stopped(
    make_trainer: MakeTrainer, score_val: Callable[..., None], num_done: int
) -> None:
    scores = [5.0, 6.0, 4.0, 3.0, 9.0, 9.0]
    settings = {"method": "baseline", "patience": 2, "mutual_epochs": 3, "num_evaluations": 6}
    score_val(*scores)
    whole = trained(make_trainer("whole", **settings))
    assert whole.step == 4
    score_val(*scores[:num_done])
    with pytest.raises(Stopped):
        make_trainer("stopped", **settings).train()
    score_val(*scores[num_done:])
    resumed = trained(make_trainer("stopped", **settings))
    assert (resumed.step, resumed.best_oiou) == (4, 6.0)
    assert same(weights_of(resumed.model), weights_of(whole.model))
    assert metrics_of(resumed) == metrics_of(whole)


def test_train__out_of_patience_and_stopped_before_the_result(
    make_trainer: MakeTrainer, score_val: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"method": "baseline", "patience": 1, "mutual_epochs": 3, "num_evaluations": 6}
    score_val(5.0, 4.0)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", lambda self, result: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            make_trainer(**settings).train()
    resumed = make_trainer(**settings)
    result = resumed.train()  # one more evaluation would be a kill
    assert (result["steps"], result["stopped_early"], result["val_oiou"]) == (2, True, 5.0)


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


def test_batches__resumed_are_the_tail_of_the_whole(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(mutual_epochs=3)
    whole = [batch.input_ids for batch in batches_of(trainer)[0]]
    trainer.step = 2
    tail = [batch.input_ids for batch in batches_of(trainer)[0]]
    assert len(whole) == trainer.num_steps
    assert len(tail) == trainer.num_steps - 2
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], tail, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_state_dict__restores_dropout_on_cuda(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.device = torch.device("cuda")
    state = trainer.state_dict()
    expected = torch.rand(4, device="cuda")
    trainer.load_state_dict(state)
    assert torch.equal(torch.rand(4, device="cuda"), expected)


def test_load_batches__unlabeled_come_with_their_candidates(make_trainer: MakeTrainer) -> None:
    unlabeled = make_trainer().data.unlabeled
    assert unlabeled is not None
    (batch,) = load_batches(unlabeled, [[(0, 0), (1, 0)]], num_workers=0)
    assert batch.offsets.tolist() == [0, len(unlabeled[0, 0].candidates), len(batch.candidates)]
    assert len(batch.candidates) > 0


@pytest.mark.parametrize("stop_at", [3, 4])
def test_train__a_loss_that_is_not_finite_stops_the_run(make_trainer: MakeTrainer, stop_at: int) -> None:
    # 4 steps, evaluations after 2 and 4: found in the step after it, or before anything is kept.
    trainer = make_trainer(method="semires", mutual_epochs=2)
    step = trainer.gradients

    class Diverged(TrainStep):
        def __call__(self, *args: Any) -> dict[str, Tensor]:
            sums = step(*args)
            is_now = trainer.step == stop_at - 1
            return sums | ({"loss_unsup": sums["loss_unsup"] * float("nan")} if is_now else {})

    trainer.gradients = Diverged(trainer.config, trainer.model, trainer.teacher, trainer.ranks, CPU)
    seen: list[list[int]] = []
    train_step = trainer.train_step

    def note_refs(labeled: Batch, unlabeled: Batch | None) -> None:
        assert unlabeled is not None
        seen.append([*labeled.ref_ids.tolist(), *unlabeled.ref_ids.tolist()])
        train_step(labeled, unlabeled)

    trainer.train_step = note_refs  # type: ignore[method-assign]
    with pytest.raises(InputError, match=f"found none at step {stop_at} of 4 .*last good state is that of step 2") as e:
        trainer.train()
    assert f"(ref ids {', '.join(map(str, seen[stop_at - 1]))})" in str(e.value)
    assert [line["step"] for line in metrics_of(trainer)] == [2]
    # As if it had never been: the run goes on from the state before.
    resumed = trained(make_trainer(method="semires", mutual_epochs=2))
    whole = trained(make_trainer("whole", method="semires", mutual_epochs=2))
    assert same(weights_of(resumed.evaluated), weights_of(whole.evaluated))


def test_train__a_full_disk_is_said_and_training_goes_on(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    trainer = make_trainer(method="supervised", burn_in_epochs=4, say=said.append)
    save = StateFiles.save

    def full_at_the_second(self: StateFiles, step: int, state: Any) -> None:
        if step == 4:
            raise OSError(28, "No space left on device")
        save(self, step, state)

    monkeypatch.setattr(StateFiles, "save", full_at_the_second)
    assert trainer.train()["steps"] == 4
    assert said == [
        f"{trainer.folder.path}: the state of step 4 could not be written ([Errno 28] No space left on device); "
        "training goes on, the last state is that of step 2: free space there"
    ]


def test_train__states_between_evaluations(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(method="supervised", burn_in_epochs=6, num_evaluations=1, save_minutes=0.0)
    seen: list[int | None] = []
    train_step = trainer.train_step

    def note_state(labeled: Batch, unlabeled: Batch | None) -> None:
        seen.append(trainer.folder.states().latest_step)
        train_step(labeled, unlabeled)

    trainer.train_step = note_state  # type: ignore[method-assign]
    trainer.train()
    assert seen == [None, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "baseline", "batch_labeled": 2, "batch_unlabeled": 8}, "--batch-labeled: expected a sample for"),
        ({"method": "baseline", "batch_labeled": 4, "batch_unlabeled": 3}, "--batch-unlabeled: expected a sample for"),
        ({"method": "supervised", "batch_burn_in": 3}, "--batch-burn-in: expected a sample for each of the 4"),
        ({"method": "supervised", "batch_burn_in": 5, "micro_batch": 1}, "--micro-batch 1: expected parts that every"),
    ],
)
def test_init__batches_that_processes_cannot_share(
    nano_config: Callable[..., TrainConfig], settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        TrainStep(nano_config(**settings), nn.Identity(), None, Ranks(None, 0, 4), CPU)
