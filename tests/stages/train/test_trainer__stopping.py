"""How a training stops and goes on: a kill, a full disk, a loss that is not finite, patience that is at its end."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semires.stages.data.errors import InputError
from semires.stages.train import trainer as trainer_module
from semires.stages.train.config import UNSAID
from semires.stages.train.engine.states import StateFiles
from semires.stages.train.matching import MatchConfig
from semires.stages.train.metrics import SegmentationScores
from semires.stages.train.reading.samples import Batch
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.step import TrainStep
from semires.stages.train.trainer import Trainer

CPU = torch.device("cpu")
MakeTrainer = Callable[..., Trainer]
MetricsOf = Callable[[Trainer], list[dict[str, Any]]]
# Any candidate that a label touches is united: with this every sample that has candidates is refined.
TAKE_ALL = MatchConfig(strategy="cpi", inter1=0.0, inter2=0.0)


class Stopped(Exception):
    """Stands for a kill."""


def trained(trainer: Trainer) -> Trainer:
    trainer.train()
    return trainer


def same(first: nn.Module, second: nn.Module) -> bool:
    left, right = first.state_dict(), second.state_dict()
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


def test_train__a_run_begun_before_there_were_recipes_goes_on(make_trainer: MakeTrainer, metrics_of: MetricsOf) -> None:
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
    assert same(again.model, whole.model)
    assert metrics_of(again) == metrics_of(whole)


@pytest.mark.parametrize("method", ["supervised", "semires"])
def test_train__goes_on_bit_identically(make_trainer: MakeTrainer, method: str, metrics_of: MetricsOf) -> None:
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
    assert same(resumed.model, whole.model)
    assert same(resumed.evaluated, whole.evaluated)
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
    resumed = make_trainer(method="supervised")
    result = resumed.train()
    assert resumed.folder.is_finished
    assert result["val_oiou"] == trainer.best_oiou
    assert same(resumed.model, trainer.model)


def test_batches__resumed_are_the_tail_of_the_whole(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(mutual_epochs=3)

    def read() -> list[Tensor]:
        labeled, _ = trainer.data.batches(trainer.config, trainer.plan, trainer.step, trainer.ranks, CPU)
        return [batch.input_ids for batch in labeled]

    whole = read()
    trainer.step = 2
    tail = read()
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


@pytest.mark.parametrize("stop_at", [3, 4])
def test_train__a_loss_that_is_not_finite_stops_the_run(
    make_trainer: MakeTrainer, stop_at: int, metrics_of: MetricsOf
) -> None:
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
    assert same(resumed.evaluated, whole.evaluated)


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
    metrics_of: MetricsOf,
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
    make_trainer: MakeTrainer,
    score_val: Callable[..., None],
    num_done: int,
    metrics_of: MetricsOf,
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
    assert same(resumed.model, whole.model)
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
