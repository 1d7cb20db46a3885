import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from semires.cache.candidates import Candidates
from semires.cache.schema import Manifest
from semires.cache.views import build_view
from semires.cache.writer import StoreWriter
from semires.stages.data.errors import InputError
from semires.stages.data.fingerprint import SplitFingerprint
from semires.stages.data.labeled import draw_labeled_images
from semires.stages.data.refer import ReferDataset
from semires.stages.processes.lock import folder_lock
from semires.stages.train.config import TrainConfig
from semires.stages.train.run import (
    as_begun,
    burn_in_differences,
    check_burn_in,
    check_candidates,
    check_run,
    move_aside,
    run_sources,
    train_run,
)
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.train_data import TrainData

CPU = torch.device("cpu")
NanoConfig = Callable[..., TrainConfig]


class Stopped(Exception):
    """Stands for a kill."""


class Kept:
    """Stands for a trainer: gives back what it was to train with."""

    def __init__(self, data: TrainData) -> None:
        self.data = data

    def train(self) -> dict[str, Any]:
        return {"data": self.data}


@pytest.fixture(scope="session")
def supervised(tmp_path_factory: pytest.TempPathFactory, refshapes: ReferDataset, nano_config: NanoConfig) -> Path:
    """A finished supervised run, only to be read."""
    path = tmp_path_factory.mktemp("runs") / "supervised"
    train_run(nano_config().burn_in(), refshapes, path, CPU)
    return path


@pytest.fixture(scope="session")
def semires(
    tmp_path_factory: pytest.TempPathFactory, refshapes: ReferDataset, viewed_store: Path, nano_config: NanoConfig
) -> Path:
    """A finished run with its own burn-in, only to be read."""
    path = tmp_path_factory.mktemp("runs") / "semires"
    train_run(nano_config(method="semires"), refshapes, path, CPU, store=viewed_store)
    return path


def best_of(path: Path) -> bytes:
    return (path / "best.safetensors").read_bytes()


def metrics_of(path: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "samples_per_second", "data_wait")}
        for line in RunFolder(path).read_metrics()
    ]


def test_train_run__supervised_is_the_burn_in_of_another_method(supervised: Path, semires: Path) -> None:
    assert best_of(semires / "burn-in") == best_of(supervised)
    assert RunFolder(semires / "burn-in").read_config() == RunFolder(supervised).read_config()
    assert metrics_of(semires / "burn-in") == metrics_of(supervised)


def test_train_run__own_burn_in_and_a_given_one_lead_to_the_same_weights(
    tmp_path: Path,
    refshapes: ReferDataset,
    viewed_store: Path,
    nano_config: NanoConfig,
    supervised: Path,
    semires: Path,
) -> None:
    path = tmp_path / "given"
    config = nano_config(method="semires")
    result = train_run(config, refshapes, path, CPU, store=viewed_store, burn_in=supervised)
    assert result["val_oiou"] == RunFolder(semires).read_result()["val_oiou"]
    assert best_of(path) == best_of(semires)
    assert metrics_of(path) == metrics_of(semires)
    assert not (path / "burn-in").exists()
    # Mutual learning starts from burn-in's weights (eq. 2) and goes on from there.
    weights, burnt_in = load_file(semires / "best.safetensors"), load_file(supervised / "best.safetensors")
    assert weights.keys() == burnt_in.keys()
    assert any(not torch.equal(weights[name], burnt_in[name]) for name in weights)


def test_train_run__records_its_store_and_burn_in(
    tmp_path: Path,
    refshapes: ReferDataset,
    viewed_store: Path,
    nano_config: NanoConfig,
    supervised: Path,
    semires: Path,
) -> None:
    made_with = {"split": "refshapes", "sam": "tiny", "sam_sha256": "0" * 64, "generator": {}}
    store, own = {"location": str(viewed_store), **made_with}, {"location": "burn-in", "sha256": None}
    assert RunFolder(semires).read_sources() == {"store": store, "burn_in": own}
    assert not (supervised / "sources.json").exists()
    given = {"location": str(supervised), "sha256": hashlib.sha256(best_of(supervised)).hexdigest()}
    assert run_sources(nano_config(method="baseline"), None, supervised) == {"burn_in": given}
    # With another burn-in, or another store, it is another run, also a finished one.
    with pytest.raises(InputError, match=r"holds a run with the burn-in burn-in \(sha256 None\), asked for"):
        train_run(nano_config(), refshapes, semires, CPU, store=viewed_store, burn_in=supervised)
    other = tmp_path / "other.zarr"
    with StoreWriter(other, Manifest(split="refshapes", sam="vit_b", sam_sha256="1" * 64)) as writer:
        for image_id in {ref.image_id for ref in refshapes.refs_of("train")}:
            none = np.zeros((0, 4, 4), dtype=bool)
            writer.add(Candidates.from_masks(image_id, none, np.zeros(0), np.zeros(0), np.zeros((0, 2))))
    with pytest.raises(InputError, match=r"holds a run with the store .*'tiny'.*other\.zarr \(sam 'vit_b'\)"):
        train_run(nano_config(), refshapes, semires, CPU, store=other)


def test_train_run__each_set_reads_its_text(
    tmp_path: Path, refshapes: ReferDataset, nano_config: NanoConfig, supervised: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [dataclasses.replace(ref, raw_expressions=("Unlike it!",) * len(ref.expressions)) for ref in refshapes.refs]
    dataset = copy.copy(refshapes)
    dataset.refs = tuple(refs)
    monkeypatch.setattr("semires.stages.train.run.Trainer", lambda config, model, data, *rest, **more: Kept(data))
    tokenizer = nano_config().build_model(pretrained=False).tokenizer
    raw = tokenizer(["Unlike it!"])[0][0]
    for text, eval_text in (("raw", "sent"), ("sent", "raw")):
        config = nano_config(method="baseline", text=text, eval_text=eval_text)
        data = train_run(config, dataset, tmp_path / text, CPU, burn_in=supervised)["data"]
        for samples in (data.labeled, data.unlabeled):
            assert torch.equal(samples[0, 0].input_ids, raw) == (text == "raw")
        assert torch.equal(data.val[0, 0].input_ids, raw) == (eval_text == "raw")


def test_train_run__records_what_it_is_trained_with(refshapes: ReferDataset, supervised: Path, semires: Path) -> None:
    (of_semires,) = RunFolder(semires).read_environments()
    for folder in (supervised, semires / "burn-in"):
        (found,) = RunFolder(folder).read_environments()
        assert found | {"started": None} == of_semires | {"started": None}
    assert of_semires["device"] == "cpu"
    assert of_semires["data"] == {
        split: dataclasses.asdict(SplitFingerprint.of(refshapes, split, "raw")) for split in ("train", "val")
    }


def test_train_run__goes_on_with_another_environment_and_other_data(
    tmp_path: Path, refshapes: ReferDataset, nano_config: NanoConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a reason to refuse it: both are recorded, and other data are said."""
    monkeypatch.setattr("semires.stages.train.run.Trainer", lambda config, model, data, *rest, **more: Kept(data))
    config, path, said = nano_config().burn_in(), tmp_path / "run", list[str]()
    fewer = copy.copy(refshapes)
    fewer.refs = tuple(ref for ref in refshapes.refs if ref.split == "train" or ref.ref_id % 2)
    for dataset, threads in ((refshapes, 1), (refshapes, 1), (refshapes, 2), (refshapes, 1), (fewer, 1)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        train_run(config, dataset, path, CPU, say=said.append)
    found = RunFolder(path).read_environments()
    assert [entry["threads"] for entry in found] == [1, 2, 1]
    assert found[0]["data"] == found[1]["data"]
    assert found[2]["data"]["val"]["num_refs"] < found[0]["data"]["val"]["num_refs"]
    assert said == [f"{path} goes on with other data than it was begun with (val): see environment.json"]


def test_train_run__labeled_images_are_those_drawn(
    refshapes: ReferDataset, nano_config: NanoConfig, supervised: Path
) -> None:
    drawn = draw_labeled_images(refshapes.refs_of("train"), 0.25, 0)
    assert RunFolder(supervised).read_labeled_images() == sorted(drawn)
    labeled, unlabeled = check_run(nano_config(), refshapes, supervised.parent / "other")
    assert {ref.image_id for ref in labeled} == set(drawn)
    assert {ref.image_id for ref in labeled}.isdisjoint(ref.image_id for ref in unlabeled)
    assert len(labeled) + len(unlabeled) == len(refshapes.refs_of("train"))


def test_train_run__labeled_list_in_place_of_a_draw(
    tmp_path: Path, refshapes: ReferDataset, nano_config: NanoConfig
) -> None:
    (tmp_path / "ids.txt").write_text("4\n2\n")
    config = nano_config(labeled_list=str(tmp_path / "ids.txt"))
    train_run(config.burn_in(), refshapes, tmp_path / "run", CPU)
    assert RunFolder(tmp_path / "run").read_labeled_images() == [2, 4]
    # Typed again after the list was edited, it is another run.
    (tmp_path / "ids.txt").write_text("4\n3\n")
    with pytest.raises(InputError, match="other labeled images"):
        train_run(config.burn_in(), refshapes, tmp_path / "run", CPU)


def test_labeled_list__is_what_it_holds(
    tmp_path: Path, refshapes: ReferDataset, nano_config: NanoConfig, supervised: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = RunFolder(supervised).read_labeled_images()
    Path("ids.txt").write_text("\n".join(map(str, drawn)), encoding="utf-8")
    Path("ids.json").write_text(str(drawn[::-1]), encoding="utf-8")
    relative = nano_config(labeled_list="ids.txt", burn_in_epochs=1)
    train_run(relative.burn_in(), refshapes, tmp_path / "listed", CPU)
    for place in (str(tmp_path / "ids.txt"), "ids.json", "./ids.txt"):
        config = nano_config(labeled_list=place, burn_in_epochs=1, labeled=0.5)
        # The same command goes on, and other methods start from it, wherever the list lies and however it is written.
        check_run(config.burn_in(), refshapes, tmp_path / "listed")
        for burn_in in (tmp_path / "listed", supervised):  # these ids were drawn there
            check_run(config, refshapes, tmp_path / "new", burn_in)
        assert burn_in_differences(RunFolder(tmp_path / "listed"), config) == {}
    check_run(nano_config(burn_in_epochs=1), refshapes, tmp_path / "new", tmp_path / "listed")
    Path("ids.txt").write_text("\n".join(map(str, drawn[1:])), encoding="utf-8")
    for path in (tmp_path / "listed", supervised):
        with pytest.raises(InputError, match="expected a run with the 2 labeled images of this one, found others"):
            check_run(relative, refshapes, tmp_path / "new", path)


def test_train_run__a_finished_one_is_left_alone(
    refshapes: ReferDataset, nano_config: NanoConfig, supervised: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in supervised.iterdir()}
    result = train_run(nano_config().burn_in(), refshapes, supervised, CPU)
    assert result == json.loads((supervised / "result.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in supervised.iterdir()} == before


def test_train_run__goes_on_in_either_phase(
    tmp_path: Path, refshapes: ReferDataset, viewed_store: Path, nano_config: NanoConfig, semires: Path
) -> None:
    config, path = nano_config(method="semires"), tmp_path / "stopped"
    for stop_at in (("supervised", 3), ("semires", 1), ("semires", 5)):

        def stop(what: str, done: int, total: int, stop_at: tuple[str, int] = stop_at) -> None:
            if (what, done) == stop_at:
                raise Stopped

        with pytest.raises(Stopped):
            train_run(config, refshapes, path, CPU, store=viewed_store, on_progress=stop)
        assert RunFolder(path).is_started
        assert not RunFolder(path).is_finished
    train_run(config, refshapes, path, CPU, store=viewed_store)
    for phase in (".", "burn-in"):
        assert best_of(path / phase) == best_of(semires / phase)
        assert metrics_of(path / phase) == metrics_of(semires / phase)


def test_train_run__other_settings_refused(refshapes: ReferDataset, nano_config: NanoConfig, supervised: Path) -> None:
    with pytest.raises(InputError, match=r"learning_rate 0\.001, asked for 0\.5"):
        train_run(nano_config(learning_rate=0.5).burn_in(), refshapes, supervised, CPU)


def test_train_run__refusals_leave_no_folder(
    tmp_path: Path, refshapes: ReferDataset, viewed_store: Path, nano_config: NanoConfig
) -> None:
    path = tmp_path / "run"
    with pytest.raises(InputError, match="leaves no unlabeled image"):
        train_run(nano_config(labeled=1.0), refshapes, path, CPU, store=viewed_store)
    with pytest.raises(InputError, match="at least one image"):
        train_run(nano_config(labeled=0.01), refshapes, path, CPU, store=viewed_store)
    with pytest.raises(InputError, match="needs a candidate store"):
        train_run(nano_config(), refshapes, path, CPU)
    with pytest.raises(InputError, match=r"expected a run of `semires train`, found no .*nowhere"):
        train_run(nano_config(), refshapes, path, CPU, store=viewed_store, burn_in=tmp_path / "nowhere")
    assert not path.exists()


def test_train_run__all_images_labeled_is_fine_for_supervised(
    tmp_path: Path, refshapes: ReferDataset, nano_config: NanoConfig
) -> None:
    labeled, unlabeled = check_run(nano_config(labeled=1.0).burn_in(), refshapes, tmp_path / "run")
    assert labeled == refshapes.refs_of("train")
    assert unlabeled == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("labeled", 0.5), ("labeled_seed", 1), ("model", "base"), ("split", "refcoco")],
)
def test_check_burn_in__of_other_data_or_model(
    nano_config: NanoConfig, supervised: Path, name: str, value: object
) -> None:
    folder = RunFolder(supervised)
    check_burn_in(folder, nano_config(alpha=0.1, mutual_epochs=9))
    with pytest.raises(InputError, match=f"--burn-in: expected a run with {name} {value!r}, found"):
        check_burn_in(folder, nano_config(**{name: value}))


def test_burn_in_differences__how_it_was_trained_is_no_reason_to_refuse_it(
    nano_config: NanoConfig, supervised: Path
) -> None:
    folder = RunFolder(supervised)
    assert burn_in_differences(folder, nano_config(alpha=0.1, mutual_schedule=2.0, num_workers=1)) == {}
    other = nano_config(blur_labeled=True, text_dropout_burn_in=True, learning_rate=0.1)
    check_burn_in(folder, other)
    assert burn_in_differences(folder, other) == {
        "blur_labeled": (False, True),
        "text_dropout_burn_in": (False, True),
        "learning_rate": (1e-3, 0.1),
    }


def test_check_burn_in__unfinished_or_not_supervised(tmp_path: Path, nano_config: NanoConfig) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(nano_config().burn_in(), [1])
    with pytest.raises(InputError, match="expected a finished run, found an unfinished one"):
        check_burn_in(folder, nano_config())
    other = RunFolder(tmp_path / "semires")
    other.start(nano_config(), [1])
    other.finish({})
    with pytest.raises(InputError, match="expected a run with method 'supervised', found 'semires'"):
        check_burn_in(other, nano_config())


def test_check_candidates__every_unlabeled_image_must_be_there(
    tmp_path: Path, refshapes: ReferDataset, viewed_store: Path, nano_config: NanoConfig
) -> None:
    train = refshapes.refs_of("train")
    check_candidates(viewed_store, train, nano_config())
    with pytest.raises(InputError, match="needs a candidate store"):
        check_candidates(None, train, nano_config())
    image_ids = sorted({ref.image_id for ref in train})
    store = tmp_path / "partial.zarr"
    with StoreWriter(store, Manifest(split="refshapes", sam="tiny", sam_sha256="0" * 64)) as writer:
        for image_id in image_ids[2:]:
            none = np.zeros((0, 4, 4), dtype=bool)
            writer.add(Candidates.from_masks(image_id, none, np.zeros(0), np.zeros(0), np.zeros((0, 2))))
    with pytest.raises(InputError, match=rf"found none of 2 images \(first: {image_ids[0]}\).*--split refshapes"):
        check_candidates(store, train, nano_config())
    # cache-sam refuses a store of masks that were made elsewhere.
    with StoreWriter(tmp_path / "imported.zarr", Manifest(split="refshapes", sam="imported", sam_sha256="unknown")):
        pass
    with pytest.raises(InputError, match="run `semires cache import FOLDER --split refshapes`"):
        check_candidates(tmp_path / "imported.zarr", train, nano_config())
    with StoreWriter(store, Manifest(split="refshapes", sam="tiny", sam_sha256="0" * 64)) as writer:
        writer.set_aside(image_ids[1], "b.png: cut off")
    with pytest.raises(
        InputError, match=rf"found 1 that .* set aside \(first: image {image_ids[1]}, b\.png: cut off\)"
    ):
        check_candidates(store, train, nano_config())
    check_candidates(store, [ref for ref in train if ref.image_id in image_ids[2:]], nano_config())


def test_train_run__images_without_candidates(
    tmp_path: Path, refshapes: ReferDataset, nano_config: NanoConfig, supervised: Path
) -> None:
    # A store in which no image has a mask: every label is unmatched, and training goes its way.
    store = tmp_path / "empty.zarr"
    with StoreWriter(store, Manifest(split="refshapes", sam="tiny", sam_sha256="0" * 64)) as writer:
        for image_id in {ref.image_id for ref in refshapes.refs_of("train")}:
            none = np.zeros((0, 4, 4), dtype=bool)
            writer.add(Candidates.from_masks(image_id, none, np.zeros(0), np.zeros(0), np.zeros((0, 2))))
    build_view(store, 96)
    train_run(nano_config(), refshapes, tmp_path / "run", CPU, store=store, burn_in=supervised)
    assert {line["matched"] for line in metrics_of(tmp_path / "run")} == {0.0}


def test_train_run__a_second_training_in_the_folder_is_refused(
    tmp_path: Path, refshapes: ReferDataset, nano_config: NanoConfig
) -> None:
    with folder_lock(tmp_path / "run", what="training"), pytest.raises(InputError, match="found another at work"):
        train_run(nano_config(method="supervised"), refshapes, tmp_path / "run", CPU)
    assert not RunFolder(tmp_path / "run").is_started


def test_move_aside__begins_anew_and_loses_nothing(
    tmp_path: Path, refshapes: ReferDataset, nano_config: NanoConfig
) -> None:
    path = tmp_path / "run"
    assert move_aside(path) is None
    for number, seed in ((1, 3), (2, 4)):
        config = nano_config(method="supervised", seed=seed)
        RunFolder(path).start(config, [1])
        with folder_lock(path, what="training"), pytest.raises(InputError, match="found another at work"):
            move_aside(path)
        assert move_aside(path) == tmp_path / f"run.old{number}"
        assert not path.exists()
        assert RunFolder(tmp_path / f"run.old{number}").read_config() == config


def test_as_begun__former_defaults_and_precision_of_the_run(tmp_path: Path, nano_config: NanoConfig) -> None:
    asked = TrainConfig(split="refshapes", model="nano")
    assert as_begun(asked, tmp_path, CPU).precision in ("fp32", "bf16")
    begun = dataclasses.replace(asked, precision="fp32", batch_labeled=3, batch_unlabeled=3, batch_burn_in=6)
    RunFolder(tmp_path).start(begun, [1])
    assert as_begun(asked, tmp_path, CPU) == begun
    assert as_begun(asked, tmp_path, CPU, given=["batch_labeled"]).batch_labeled == 12


def test_check_run__a_ref_without_a_mask_is_unlabeled(
    tmp_path: Path,
    refshapes: ReferDataset,
    without_masks: Callable[..., ReferDataset],
    nano_config: NanoConfig,
) -> None:
    """Own data says itself what is labeled: with a share of 1, every mask that it has."""
    refs = refshapes.refs_of("train")
    unknown = {ref.ref_id for ref in refs if ref.image_id > 3 or ref == refs[0]}
    labeled, unlabeled = check_run(nano_config(labeled=1.0), without_masks(unknown), tmp_path / "run")
    assert {ref.ref_id for ref in unlabeled} == unknown
    assert {ref.image_id for ref in labeled} == {1, 2, 3}
    assert len(labeled) + len(unlabeled) == len(refs)


def test_check_run__without_val_no_weights_are_the_best(
    tmp_path: Path, refshapes: ReferDataset, nano_config: NanoConfig
) -> None:
    own = copy.copy(refshapes)
    own.refs = tuple(ref for ref in own.refs if ref.split != "val")
    with pytest.raises(InputError, match="expected a split of refshapes with refs, found 'val'; it has testA, testB,"):
        check_run(nano_config(), own, tmp_path / "run")


def test_run_sources__own_datas_file(tmp_path: Path, nano_config: NanoConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.jsonl").write_text("{}")
    config = nano_config(split="my.jsonl").burn_in()
    sources = run_sources(config, None, None)
    assert sources == {"data": {"location": "my.jsonl", "sha256": hashlib.sha256(b"{}").hexdigest()}}
    assert run_sources(nano_config().burn_in(), None, None) is None
    folder = RunFolder(tmp_path / "run")
    folder.start(config, [1], sources)
    folder.start(config, [1], run_sources(config, None, None))
    # The same file by another path.
    absolute = nano_config(split=str(tmp_path / "my.jsonl")).burn_in()
    folder.start(absolute, [1], run_sources(absolute, None, None))
    Path("other").mkdir()
    with pytest.raises(InputError, match=r"holds a run with split 'my\.jsonl', asked for 'other/my\.jsonl'"):
        folder.start(nano_config(split="other/my.jsonl").burn_in(), [1])
    Path("my.jsonl").write_text("{} ")
    with pytest.raises(InputError, match=r"holds a run with the data my\.jsonl \(sha256 .* begin anew with --restart"):
        folder.start(config, [1], run_sources(config, None, None))
