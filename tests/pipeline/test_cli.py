"""The command line from the outside: what each command prints, leaves and refuses."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image

from semires.cache.reader import CandidateStore
from semires.pipeline import cli, datasets
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam
from semires.stages.data.refshapes.writer import RefShapesConfig
from semires.stages.train.config import TrainConfig
from semires.stages.train.labels.group_labels import GroupConfig
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.trainer import Trainer

Semires = Callable[..., Any]
Refused = Callable[..., str]
# Settings with which one training step follows another in no time.
SHORT = ("--model", "nano", "--burn-in-epochs", 1, "--mutual-epochs", 1, "--batch-unlabeled", 6, "--device", "cpu")
# A SAM that has learnt nothing still has masks with these.
ALL_MASKS = ("--points-per-side", 2, "--pred-iou-thresh", 0, "--stability-score-thresh", 0)


@pytest.fixture
def small_refshapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "REFSHAPES", RefShapesConfig(num_train=16, num_val=4, num_test=5))


def commands(command: Any, name: str = "semires") -> Iterator[tuple[str, Any]]:
    """Every command by its full name; Any, for newer versions of typer bring a click of their own."""
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child_name, child in children.items():
        yield from commands(child, f"{name} {child_name}")


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


def test_commands__all_of_them() -> None:
    expected = {"make-refshapes", "cache-sam", "train", "evaluate", "predict", "table1", "figure"}
    expected |= {"convert", "export", "study labels", "study compare", "data download", "data check"}
    expected |= {f"cache {name}" for name in ("info", "verify", "show", "view", "export", "import")}
    assert {f"semires {name}" for name in expected} <= set(COMMANDS)


def test_commands__each_group_once() -> None:
    names = [group.name for group in cli.app.registered_groups]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", COMMANDS)
def test_help__of_every_command_names_every_option(semires: Semires, name: str) -> None:
    finished = semires(*name.split()[1:], "--help")
    assert (finished.code, finished.err) == (0, "")
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        help_text = getattr(parameter, "help", None)
        assert help_text, f"{name}: {parameter.name} has no help"
        if parameter.param_type_name == "option":
            assert max(parameter.opts, key=len)[:20] in finished.out


def test_module__runs_as_a_program(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "semires.pipeline.cli"]
    helped = subprocess.run([*program, "--help"], capture_output=True, text=True, check=True, env=environment)
    assert "cache-sam" in helped.stdout
    refused = subprocess.run(
        [*program, "cache-sam", "--split", "refcoco"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith("error: no data for refcoco: expected data/refcoco/refs(unc).p")


def test_train__asked_to_stop_saves_a_state_and_goes_on(
    semires: Semires, write_refer: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_refer("refcoco")
    arguments = (
        "train",
        "--split",
        "refcoco",
        "--labeled",
        0.25,
        *SHORT,
        "--method",
        "supervised",
        "--name",
        "stopped",
    )
    arguments = (*arguments, "--batch-burn-in", 1, "--burn-in-epochs", 2)
    with monkeypatch.context() as patch:
        train_step = Trainer.train_step

        def train_and_ask(self: Trainer, *batches: Any) -> None:
            train_step(self, *batches)
            if self.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(Trainer, "train_step", train_and_ask)
        finished = semires(*arguments)
    assert finished.code == 143
    assert finished.err == "stopped by SIGTERM, a state is saved; type the command again to go on\n"
    run = tmp_path / "runs" / "stopped"
    assert not (run / "result.json").exists()
    assert [path.name for path in run.glob("state-*.pt")] != []
    finished = semires(*arguments)
    assert (finished.code, finished.err) == (0, "")
    assert "runs/stopped: going on from step 3 of 8" in finished.out.splitlines()


# Each is refused before anything is written: (arguments, what the line says).
REFUSED: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
    (("cache-sam",), ("expected either --split NAME or --images FOLDER", "neither")),
    (("cache-sam", "--split", "refcoco", "--images", "."), ("both",)),
    (("cache-sam", "--split", "refcoco"), ("no data for refcoco", "refs(unc).p", "instances.json", "README")),
    (("cache-sam", "--split", "refcoco+", "--coco-images", "."), ("no data for refcoco+",)),
    (("cache-sam", "--split", "nonsense"), ("--split: expected one of refcoco", "'nonsense'")),
    (("cache-sam", "--split", "refshapes", "--device", "gpu"), ("--device", "'gpu'")),
    (("cache-sam", "--split", "refshapes", "--points-per-side", 0), ("points_per_side: expected 1 or more, found 0",)),
    (("cache-sam", "--split", "refshapes", "--precision", "int8"), ("--precision: expected one of", "'int8'")),
    (("cache-sam", "--images", "nowhere"), ("--images: expected a folder of photographs", "nowhere")),
    (("cache-sam", "--images", "."), ("--images: expected picture files such as .jpg", "found none")),
    (("train", "--labeled", 2), ("--labeled: expected a share above 0 and at most 1", "found 2.0")),
    (("train", "--labeled", 0), ("--labeled", "found 0.0")),
    (("train", "--split", "nonsense"), ("--split: expected one of refcoco", "'nonsense'")),
    (("train", "--method", "magic"), ("method: expected one of supervised, baseline, semires", "'magic'")),
    (("train", "--matching", "magic"), ("'magic'", "cpi-u")),
    (("train", "--inter1", 3), ("inter1", "3.0")),
    (
        ("train", "--model", "huge"),
        ("--model: expected base, tiny, small, large, nano, clipseg, clipseg-nano or PACKAGE", "'huge'"),
    ),
    (("train", "--model", "clipseg", "--window", 7), ("--window: expected one of LAVT's sizes", "clipseg")),
    (("train", "--image-size", 32), ("expected image_size above 32",)),
    (("train", "--precision", "fp16"), ("precision", "'fp16'")),
    (("train", "--alpha", 2), ("alpha", "2.0")),
    (("train", "--batch-labeled", 0), ("batch_labeled: expected 1 or more, found 0",)),
    (("train", "--seed", -1), ("seed: expected 0 or more, found -1",)),
    (("train", "--device", "cuda:99"), ("--device", "'cuda:99'")),
    (("train", "--log-to", "csv"), ("--log-to: expected one of tensorboard, wandb, trackio, found 'csv'",)),
    (("train", "--split", "refcoco", "--model", "nano"), ("no data for refcoco",)),
    (("evaluate", "nowhere"), ("expected a run of `semires train`", "nowhere")),
    (("figure", "nowhere"), ("expected a run of `semires train`", "nowhere")),
    (("predict", "nowhere.jpg", "left girl", "--run", "run"), ("nowhere.jpg: expected an image file, found none",)),
    (("table1", "--split", "nonsense"), ("--split", "'nonsense'")),
    (("study", "tabel1"), ("expected a study (figure6, ", "found 'tabel1'")),
    (("study", "mine.toml"), ("expected a study, found no file mine.toml",)),
    (("study", "table1", "--launcher", "magic"), ("--launcher: expected one of local, slurm", "'magic'")),
    (("study", "table1", "--set", "colour=1"), ("table1, row 'Supervised': expected a setting", "'colour'")),
    (("study", "table1", "--slurm", "partition=gpu"), ("--slurm: expected --launcher slurm",)),
    (("table1", "--log-to", "tensorboard,csv"), ("--log-to", "found 'csv'")),
    (("table1", "--split", "refshapes", "--share", 2), ("table1: shares: expected", "2.0")),
    (("cache", "info", "nowhere.zarr"), ("nowhere.zarr",)),
    (("cache", "view", "nowhere.zarr"), ("nowhere.zarr",)),
]


@pytest.mark.parametrize(("arguments", "expected"), REFUSED, ids=lambda value: " ".join(map(str, value[:3])))
def test_refused__one_line_and_nothing_written(
    semires: Semires, assert_refused: Refused, tmp_path: Path, arguments: tuple[object, ...], expected: tuple[str, ...]
) -> None:
    assert_refused(semires(*arguments), *expected)
    assert list(tmp_path.iterdir()) == []


def test_cache_sam__wrong_weights(
    semires: Semires, assert_refused: Refused, tmp_path: Path, write_refer: Callable[..., Any], sam_file: Path
) -> None:
    fake = write_refer("refcoco", num_train=1)
    arguments = ("cache-sam", "--split", "refcoco", "--data", fake.root)
    assert_refused(semires(*arguments), "SAM vit_h needs its weights: give --sam-checkpoint FILE")
    assert_refused(semires(*arguments, "--sam", "huge"), "--sam: expected one of", "'huge'")
    assert_refused(semires(*arguments, "--sam-checkpoint", tmp_path / "none.pth"), "found nothing at", "none.pth")
    (tmp_path / "text.pth").write_text("not weights\nat all\n")
    assert_refused(semires(*arguments, "--sam-checkpoint", tmp_path / "text.pth"), "no checkpoint", "text.pth")
    assert_refused(semires(*arguments, "--sam-checkpoint", sam_file), "is no SAM vit_h", "expected", "found")
    assert not (fake.root / "cache").exists()


@pytest.mark.usefixtures("small_refshapes")
@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("--sam-checkpoint", "none.pth"), "found nothing at none.pth"),
        (("--sam", "vit_b"), "SAM vit_b needs its weights"),
    ],
)
def test_cache_sam__wrong_weights_are_refused_before_refshapes_is_drawn(
    semires: Semires, assert_refused: Refused, tmp_path: Path, given: tuple[str, ...], text: str
) -> None:
    assert_refused(semires("cache-sam", "--split", "refshapes", *given), text)
    assert list(tmp_path.iterdir()) == []


def test_cache_sam__a_folder_of_photographs(semires: Semires, tmp_path: Path, sam_file: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (20, 10), "red").save(folder / "one.png")
    (folder / "two.jpg").write_text("no image")
    arguments = ("cache-sam", "--images", folder, "--sam", "tiny", "--sam-checkpoint", sam_file, *ALL_MASKS)
    finished = semires(*arguments)
    assert finished.code == 1
    assert "photos.zarr: 1 image added" in finished.out
    assert "set aside: " in finished.err
    assert "two.jpg: expected an image, found a damaged or other file" in finished.err
    assert "error: 1 images are set aside" in finished.err
    listed = semires("cache", "info", tmp_path / "data" / "cache" / "photos.zarr")
    assert "two.jpg: expected an image" in listed.out
    Image.new("RGB", (10, 20), "blue").save(folder / "two.jpg")
    finished = semires(*arguments)
    assert finished.code == 0
    assert re.search(r"photos\.zarr: 1 image added with \d+ candidate masks?, 1 were there", finished.out)
    assert "tiny, trained on RefShapes scenes only" in finished.out
    finished = semires("cache", "info", tmp_path / "data" / "cache" / "photos.zarr")
    assert finished.code == 0
    assert "split photos, SAM tiny" in finished.out
    assert "2 of 2 images in 2 parts" in finished.out
    assert "points_per_side 2" in finished.out
    assert "two.jpg" not in finished.out


def test_cache_sam__no_mask_in_any_image(semires: Semires, tmp_path: Path, sam_file: Path) -> None:
    """Weights that are not for these images, or fine-tuned ones whose predicted IoU was not trained, find nothing."""
    (tmp_path / "photos [red]").mkdir()
    for number in range(2):
        Image.new("RGB", (20, 10), "red").save(tmp_path / "photos [red]" / f"{number}.png")
    torch.save({"model": build_tiny_sam().state_dict(), "epoch": 2}, tmp_path / "tuned [b].pth")
    arguments = ("cache-sam", "--images", "photos [red]", "--sam", "tiny", "--sam-checkpoint", "tuned [b].pth")
    finished = semires(*arguments, "--points-per-side", 2, "--pred-iou-thresh", 1)
    assert finished.code == 0
    assert "tuned [b].pth: stripped off its names: 'model.'; left out: epoch" in finished.out.splitlines()
    assert len(finished.err.splitlines()) == 1
    assert finished.err.startswith("warning: none of the 2 images added has a mask: the weights of SAM tiny (tuned")
    assert "(predicted IoU 1, stability 0.7) do not fit the weights: try lower --pred-iou-thresh" in finished.err
    assert semires(*arguments, "--points-per-side", 2, "--pred-iou-thresh", 1).err == ""  # nothing was added


def test_cache_sam__names_refs_it_leaves_out(
    semires: Semires, tmp_path: Path, write_refer: Callable[..., Any], sam_file: Path
) -> None:
    fake = write_refer("refcoco", num_train=2, images=tmp_path / "coco")
    next(fake.images.glob(f"*{fake.train_ids[0]:012d}.jpg")).unlink()
    arguments = ("cache-sam", "--split", "refcoco", "--data", fake.root, "--coco-images", fake.images)
    arguments = (*arguments, "--sam", "tiny", "--sam-checkpoint", sam_file, *ALL_MASKS)
    refused = semires(*arguments)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "2 of 4 of train (ref ids 0, 1)" in refused.err
    assert "refcoco: 2 refs dropped: image file missing (ref ids 0, 1)" in refused.out
    assert semires(*arguments, "--allow-missing").code == 0
    assert CandidateStore(fake.root / "cache" / "refcoco.zarr").image_ids.tolist() == fake.train_ids[1:]


def test_cache_sam__other_settings_need_overwrite(
    semires: Semires, assert_refused: Refused, write_refer: Callable[..., Any], sam_file: Path
) -> None:
    fake = write_refer("refcoco", num_train=1)
    arguments = ("cache-sam", "--split", "refcoco", "--data", fake.root, "--sam", "tiny", "--sam-checkpoint", sam_file)
    assert semires(*arguments, *ALL_MASKS).code == 0
    assert_refused(semires(*arguments, *ALL_MASKS, "--box-nms-thresh", 0.5), "box_nms_thresh", "0.7", "0.5")
    assert semires(*arguments, *ALL_MASKS, "--box-nms-thresh", 0.5, "--overwrite").code == 0


@pytest.mark.usefixtures("small_refshapes")
def test_train__says_first_which_data_set_and_why(
    semires: Semires, assert_refused: Refused, write_refer: Callable[..., Any], tmp_path: Path
) -> None:
    finished = semires("train", "--labeled", 2)
    assert_refused(finished, "--labeled")
    assert finished.out.splitlines() == ["training on refshapes: RefCOCO's data is not in data"]
    assert list(tmp_path.iterdir()) == []
    write_refer("refcoco")
    finished = semires("train", "--labeled", 2)
    assert_refused(finished, "--labeled")
    assert finished.out.splitlines() == ["training on refcoco: its data is in data"]


@pytest.mark.parametrize("missing", ["images/mscoco/images/train2014", "refcoco/instances.json", "refcoco/refs(unc).p"])
def test_train__refcoco_in_part_is_not_taken_for_none(
    semires: Semires, assert_refused: Refused, write_refer: Callable[..., Any], tmp_path: Path, missing: str
) -> None:
    fake = write_refer("refcoco", image_files=False)
    path = fake.root / missing
    path.rmdir() if path.is_dir() else path.unlink()
    for arguments in (("train",), ("train", "--plan")):
        line = assert_refused(semires(*arguments), f"found data/{missing} missing", "--split refshapes")
        assert "refs(unc)" in missing or "refs(unc)" not in line
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_train__images_that_were_asked_for_are_not_taken_for_none(
    semires: Semires, assert_refused: Refused, tmp_path: Path
) -> None:
    assert_refused(semires("train", "--coco-images", "coco"), "found data/refcoco/refs(unc).p, ", "coco missing")
    assert list(tmp_path.iterdir()) == []


def test_train__a_model_that_cannot_be_had_is_refused_before_the_candidates_are_looked_at(
    semires: Semires, assert_refused: Refused, write_refer: Callable[..., Any], tmp_path: Path
) -> None:
    write_refer("refcoco")
    (tmp_path / "my_broken_model.py").write_text("def build(pretrained):\n    return 3\n")
    arguments = ("train", "--split", "refcoco", "--labeled", 0.25)
    assert_refused(semires(*arguments, "--model", "my_broken_model:build"), "to return a ResModel, found int")
    assert_refused(semires(*arguments, "--model", "nowhere:build"), "expected a module nowhere, found none")
    found = semires(*arguments, "--model", "clipseg", "--clipseg", "no_folder_of_mine")
    assert_refused(found, "expected a CLIPSeg", "no_folder_of_mine")
    assert not (tmp_path / "runs").exists()


def test_train__given_settings_reach_the_run(
    semires: Semires, write_refer: Callable[..., Any], write_store: Callable[..., None], tmp_path: Path
) -> None:
    fake = write_refer("refcoco")
    write_store(tmp_path / "mine.zarr", "refcoco", fake.train_ids)
    arguments = ("train", "--split", "refcoco", "--labeled", 0.25, *SHORT, "--store", "mine.zarr", "--no-pwa")
    texts = ("--text", "sent", "--eval-text", "raw")
    given = (*texts, "--matching", "cpi", "--inter2", 0.4, "--alpha", 0.5, "--lambda-sup", 2, "--batch-labeled", 1)
    finished = semires(*arguments, *given, "--log-to", "tensorboard")
    assert finished.code == 0, finished.err
    run = tmp_path / "runs" / "refcoco-0.25-semires-cpi-seed0"
    assert len(list(run.glob("**/tensorboard/events.out.tfevents.*"))) == 2  # of its burn-in and its own
    assert finished.out.splitlines()[0] == "run: runs/refcoco-0.25-semires-cpi-seed0 on cpu"
    assert "next: semires evaluate runs/refcoco-0.25-semires-cpi-seed0" in finished.out.splitlines()[-1]
    config = RunFolder(run).read_config()
    assert (config.match.strategy, config.match.inter1, config.match.inter2, config.pwa) == ("cpi", 0.7, 0.4, False)
    assert (config.alpha, config.lambda_sup, config.batch_labeled, config.batch_unlabeled) == (0.5, 2.0, 1, 6)
    assert (config.text, config.eval_text) == ("sent", "raw")
    assert (config.learning_rate, config.weight_decay) == (TrainConfig().learning_rate, TrainConfig().weight_decay)


def test_train__recipe_and_options_that_win_over_it(
    semires: Semires,
    assert_refused: Refused,
    write_refer: Callable[..., Any],
    write_store: Callable[..., None],
    tmp_path: Path,
) -> None:
    fake = write_refer("refcoco")
    write_store(tmp_path / "mine.zarr", "refcoco", fake.train_ids)
    arguments = ("train", "--split", "refcoco", "--labeled", 0.25, *SHORT, "--store", "mine.zarr")
    assert_refused(
        semires(*arguments, "--recipe", "code"), "--recipe: expected one of paper, public-code, found 'code'"
    )
    assert_refused(semires(*arguments, "--matching", "best"), "strategy", "'best'")
    chosen = ("--recipe", "public-code", "--matching", "iom", "--mutual-loss-mean", "weighted", "--patience", 1)
    chosen = (*chosen, "--blur-labeled", "--text-dropout")
    finished = semires(*arguments, *chosen)
    assert finished.code == 0, finished.err
    run = tmp_path / "runs" / "refcoco-0.25-semires-iom-public-code-seed0"
    config = RunFolder(run).read_config()
    assert (config.lambda_sup, config.alpha, config.mutual_schedule) == (10.0, 0.9996, 2.0)
    assert (config.match.strategy, config.mutual_loss_mean, config.patience) == ("iom", "weighted", 1)
    assert (config.blur_labeled, config.text_dropout_burn_in) == (True, True)
    assert RunFolder(run / "burn-in").read_config() == config.burn_in()
    # Typed, 0 is no patience, also where the recipe has some.
    group = ("--expressions", 0, "--compete", "none", "--label-floor", 0.4, "--most-refs", 3)
    group = (*group, "--label-mean", "kinds")
    two = ("--recipe", "public-code", "--patience", 0, "--name", "two", "--method", "semires-cc")
    assert semires(*arguments, *two, *group).code == 0
    config = RunFolder(tmp_path / "runs" / "two").read_config()
    assert config.patience is None
    assert config.group == GroupConfig(
        expressions=None, compete="none", label_floor=0.4, label_mean="kinds", most_refs=3
    )
    assert_refused(semires(*arguments, *group), "--expressions: expected --method semires-cc, found 'semires'")
    assert_refused(
        semires(*arguments, "--method", "baseline", "--inter1", 0.5),
        "--inter1: expected --method semires or semires-cc, found 'baseline'; leave it out",
    )
    assert_refused(
        semires(*arguments, "--matching", "iom", "--inter1", 0.5),
        "--inter1: expected --matching cpi or cpi-u, found 'iom'; leave it out",
    )
    for name in ("", " ", "a/../../b", "/tmp/x"):
        assert_refused(semires(*arguments, "--name", name), "--name: expected a folder's name below --runs")
    assert_refused(
        semires(*arguments, "--confidence-filter", 0.05),
        "--confidence-filter: expected --method baseline, found 'semires'; leave it out",
    )
    unrefined = tmp_path / "runs" / "refcoco-0.25-semires-unrefined-seed0"
    assert semires(*arguments, "--no-refine", "--no-augment", "--store", "nowhere.zarr").code == 0
    config = RunFolder(unrefined).read_config()
    assert (config.refine, config.views.blur_probability, config.views.jitter_probability) == (False, 0.0, 0.0)
    assert RunFolder(unrefined).read_metrics()[-1]["matched"] == 0.0
    assert "store" not in RunFolder(unrefined).read_sources()
    filtered = ("--method", "baseline", "--confidence-filter", 0.05, "--name", "filtered")
    assert semires(*arguments, *filtered).code == 0
    assert RunFolder(tmp_path / "runs" / "filtered").read_config().confidence_filter == 0.05
    # An early stop is said, also by a run that stopped earlier.
    result = RunFolder(run).read_result()
    RunFolder(run).finish(result | {"steps": 1, "num_steps": 3, "stopped_early": True})
    out = " ".join(semires(*arguments, *chosen).out.split())
    assert "stopped early, after step 1 of 3: 1 evaluations in a row without a gain in val oIoU" in out


def test_fidelity__names_options_that_there_are() -> None:
    text = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text()
    named = set(re.findall(r"--[a-z][a-z0-9-]+", text))
    options = {option for parameter in COMMANDS["semires train"].params for option in parameter.opts}
    assert {"--recipe", "--patience", "--text-dropout"} <= named <= options


def test_train__labeled_list_of_the_public_code(
    semires: Semires, assert_refused: Refused, write_refer: Callable[..., Any], tmp_path: Path
) -> None:
    fake = write_refer("refcoco")

    def write_list(image_ids: list[int]) -> None:
        entries = [
            {"iid": image_id, "bbox": [1, 2, 3, 4], "cat_id": 1, "refs": ["left box", "box"], "mask_id": 10 * image_id}
            for image_id in image_ids
            for _ in range(2)  # an entry a ref: images come more than once
        ]
        (tmp_path / "refcoco_1%_image.json").write_text(json.dumps({"train": entries}))

    arguments = ("train", "--split", "refcoco", "--labeled-list", "refcoco_1%_image.json", *SHORT)
    arguments = (*arguments, "--method", "supervised")
    write_list([5, *fake.train_ids[:2]])
    assert_refused(semires(*arguments), "1 of 3 that are on none (5)")
    write_list([fake.train_ids[6], fake.train_ids[1]])
    finished = semires(*arguments)
    assert finished.code == 0, finished.err
    named = "runs/refcoco-list-refcoco_1%_image-supervised-seed0"
    assert finished.out.splitlines()[0] == f"run: {named} on cpu"
    absolute = (*arguments[:4], tmp_path / arguments[4], *arguments[5:])
    finished = semires(*absolute, "--name", named.removeprefix("runs/"))
    assert finished.code == 0, finished.err
    (tmp_path / named).rename(tmp_path / "runs" / "listed")
    assert RunFolder(tmp_path / "runs" / "listed").read_labeled_images() == [fake.train_ids[1], fake.train_ids[6]]
    (tmp_path / "refcoco_1%_image.json").write_text('{"train": 3}')
    assert_refused(semires(*arguments), "expected a JSON list of integer image ids")


def test_train__a_name_that_is_taken(
    semires: Semires, assert_refused: Refused, write_refer: Callable[..., Any]
) -> None:
    write_refer("refcoco")
    arguments = ("train", "--split", "refcoco", "--labeled", 0.25, *SHORT, "--method", "supervised", "--name", "one")
    assert semires(*arguments).code == 0
    assert_refused(semires(*arguments, "--learning-rate", 0.1), "learning_rate 5e-05, asked for 0.1", "--name")
    assert_refused(semires(*arguments, "--text", "sent"), "text 'raw', asked for 'sent'", "--text raw --eval-text raw")
    assert_refused(semires(*arguments, "--eval-text", "tokens"), "eval_text: expected one of raw, sent, found 'tokens'")
    assert_refused(semires(*arguments[:-4], "--method", "baseline", "--burn-in", "runs/two"), "runs/two")
    # The run that is there serves as burn-in of another method, and not of other data.
    shared = ("--method", "baseline", "--burn-in", "runs/one", "--name", "two")
    finished = semires(*arguments[:-4], *shared)
    assert finished.code == 0
    assert "was trained with" not in finished.out
    finished = semires(*arguments[:-4], *shared[:-1], "blurred", "--blur-labeled")
    assert finished.code == 0
    assert "runs/one was trained with blur_labeled False, not True" in finished.out.splitlines()
    assert_refused(semires(*arguments[:-4], *shared, "--labeled", 0.5, "--name", "three"), "--burn-in", "labeled 0.5")


@pytest.mark.usefixtures("small_refshapes", "quick_processes")
def test_whole_way__from_nothing_to_table_1(semires: Semires, tmp_path: Path) -> None:
    def run(*arguments: object) -> list[str]:
        finished = semires(*arguments)
        assert finished.code == 0, finished.err
        assert finished.err == ""
        lines: list[str] = finished.out.splitlines()
        return lines

    assert re.match(r"data/refshapes: \d+ images with refs, \d+ refs$", run("make-refshapes")[-1])

    # Thresholds wide open: this is about the way, not about how good the tiny SAM is.
    cache = ("cache-sam", "--split", "refshapes", "--points-per-side", 4)
    cache = (*cache, "--pred-iou-thresh", 0, "--stability-score-thresh", 0)
    assert "data/cache/refshapes.zarr: 16 images added with" in run(*cache)[-1]
    assert "0 images added with 0 candidate masks, 16 were there" in run(*cache)[-1]

    steps = ("--burn-in-epochs", 10, "--batch-burn-in", 6, "--learning-rate", 2e-3)
    mutual = ("--mutual-epochs", 1, "--matching", "cpi", "--inter1", 0, "--inter2", 0)
    lines = run("train", "--labeled", 0.25, "--name", "mine", "--device", "cpu", *steps, *mutual)
    assert lines[0] == "training on refshapes: RefCOCO's data is not in data"
    assert lines[-1].endswith("next: semires evaluate runs/mine")
    assert {path.name for path in (tmp_path / "runs" / "mine").iterdir()} == {
        *("config.json", "environment.json", "labeled_images.json", "sources.json", "metrics.jsonl"),
        *("best.safetensors", "result.json", "burn-in", ".lock"),
    }

    text = " ".join(run("evaluate", "runs/mine"))
    for word in ("RefShapes", "SemiRES", "val", "testA", "testB", "P@0.5", "P@0.9"):
        assert word in text
    scores = json.loads((tmp_path / "runs" / "mine" / "scores.json").read_text())
    assert list(scores["by_split"]) == ["val", "testA", "testB"]
    assert all(0 <= values["oiou"] <= 100 for values in scores["by_split"].values())

    run("predict", "data/refshapes/images/val_000000.png", "left circle", "--run", "runs/mine")
    assert (tmp_path / "reports" / "val_000000_mask.png").is_file()
    assert (tmp_path / "reports" / "val_000000_overlay.png").is_file()

    assert run("figure", "runs/mine", "--examples", 2)[-1] == "written: reports/refinement.png"
    with Image.open(tmp_path / "reports" / "refinement.png") as picture:
        assert picture.width > picture.height > 200

    few = [("--set", f"{name}=1") for name in ("burn_in_epochs", "mutual_epochs", "num_evaluations")]
    lines = run("study", "table1", "--share", 0.25, *(word for option in few for word in option))
    for split in ("refcoco", "refcoco+", "refcocog"):
        assert any(line.startswith(f"not measured: {split}: missing data/{split}/") for line in lines)
    assert lines[-1] == "written: reports/table1.md, reports/table1.json"
    text = (tmp_path / "reports" / "table1.md").read_text()
    assert "|  | 25% val | 25% testA | 25% testB | paper: RefCOCO 1% val |" in text
    assert "## RefShapes" in text
    content = json.loads((tmp_path / "reports" / "table1.json").read_text())
    assert [run["row"] for run in content["runs"]] == ["Supervised", "Baseline", "SemiRES", "SemiRES-CC"]
