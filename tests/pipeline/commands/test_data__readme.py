"""README's first mask and its "RefCOCO step by step", typed as they stand.

RefCOCO is a data set in its full layout, served from loopback. Small are the images, SAM, Swin, BERT and the number of
epochs; the commands, the files' names and their places are README's.
"""

import dataclasses
import functools
import hashlib
import io
import json
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertModel

from semires.cache.reader import CandidateStore
from semires.pipeline import datasets, recipes
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models import sam
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam, weights_path
from semires.stages.data.checking.counts import PUBLISHED, count_splits
from semires.stages.data.download.sources import SOURCES
from semires.stages.data.refer import ReferDataset
from semires.stages.data.refshapes.writer import RefShapesConfig
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.lavt.config import LAVT_BASE, LAVT_SIZES
from semires.stages.train.models.tokenization import build_vocab


def zipped(folder: Path, inside: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{inside}/{path.name}")
        archive.writestr(f"__MACOSX/{inside}/._x", b"")
    return buffer.getvalue()


@pytest.fixture
def served(
    serve: Callable[..., Any],
    write_refer: Callable[..., Any],
    swin_tensors: Callable[..., dict[str, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """A server with all files of the section, small ones, which the table of sources knows as the right ones."""
    fake = write_refer("refcoco", num_train=100)  # of fewer, 1% is no image
    files = {
        "refcoco.zip": zipped(fake.root / "refcoco", "refcoco"),
        "train2014.zip": zipped(fake.images, "train2014"),
    }
    monkeypatch.setitem(PUBLISHED, "refcoco", count_splits(ReferDataset.load(fake.root, "refcoco").refs))
    fake.root.rename(tmp_path / "made")

    made = tmp_path / "weights"
    made.mkdir()
    torch.save(load_file(weights_path()), made / "sam.pth")
    torch.save({"model": swin_tensors()}, made / "swin.pth")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=200, max_position_embeddings=32, **sizes)).save_pretrained(made)
    (made / "vocab.txt").write_text("\n".join(build_vocab(["left", "right", "box", "on", "the"])) + "\n")
    (made / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    files["sam_vit_h_4b8939.pth"] = (made / "sam.pth").read_bytes()
    files["swin_base_patch4_window12_384_22k.pth"] = (made / "swin.pth").read_bytes()
    for name in ("config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors"):
        files[f"bert-base-uncased/{name}"] = (made / name).read_bytes()

    for name, source in SOURCES.items():
        known = tuple(
            dataclasses.replace(
                file,
                size=len(files[file.path]),
                sha256=hashlib.sha256(files[file.path]).hexdigest(),
                is_size_known=True,
            )
            for file in source.files
            if file.path in files
        )
        unpacking = source.unpacking
        if unpacking is not None and not unpacking.needed:
            unpacking = dataclasses.replace(unpacking, num_files=len(list((tmp_path / "made").rglob("*.jpg"))))
        monkeypatch.setitem(SOURCES, name, dataclasses.replace(source, files=known, unpacking=unpacking))
    served = serve(files, cuts=[200])  # the first file comes in two parts
    monkeypatch.setenv("SEMIRES_MIRROR", served.url)
    return served


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """SAM, LAVT and the recipe under the names of the large ones."""
    monkeypatch.setitem(sam.sam_model_registry, "vit_h", build_tiny_sam)
    thresholds = {"pred_iou_thresh": 0.3, "stability_score_thresh": 0.3}
    monkeypatch.setattr(sam, "GeneratorSettings", lambda: GeneratorSettings(points_per_side=4, **thresholds))
    small = dataclasses.replace(
        LAVT_BASE,
        image_size=40,
        swin_embed_dim=8,
        swin_depths=(1, 1, 2, 1),
        swin_heads=(1, 2, 4, 8),
        swin_window=7,
        text_hidden=16,
        text_layers=2,
        text_heads=4,
        text_intermediate=32,
        text_positions=32,
        vocab_size=200,
        decoder_width=8,
        trained_text_layers=2,
    )
    monkeypatch.setitem(LAVT_SIZES, "base", small)
    short = functools.partial(TrainConfig, burn_in_epochs=8, mutual_epochs=1, num_evaluations=1)
    monkeypatch.setattr(recipes, "TrainConfig", short)


@pytest.mark.usefixtures("small_models")
def test_readme__refcoco_step_by_step(
    semires: Callable[..., Any], served: Any, fenced: Callable[..., list[Any]], tmp_path: Path
) -> None:
    lines = "".join(block.text for block in fenced("README.md", "sh", section="RefCOCO step by step")).splitlines()
    commands = [line for line in lines if not line.startswith("#")]
    assert [command.split()[1] for command in commands] == ["data", "data", "cache-sam", "train", "evaluate"]
    outputs = []
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "semires"
        finished = semires(*arguments)
        assert finished.code == 0, (command, finished)
        if arguments[0] != "train":  # transformers says on standard error which weights of BERT are not read
            assert finished.err == ""
        outputs.append(finished.out)

    assert [path for path, _ in served.asked[:2]] == ["/refcoco.zip", "/refcoco.zip"]  # taken up after the cut
    assert served.asked[1][1] == "bytes=200-"
    assert "refcoco: nothing wrong" in outputs[1]
    assert "expressions are read by the tokenizer BERT's, in data/weights/bert-base-uncased" in outputs[1]
    info = CandidateStore("data/cache/refcoco.zarr").info()
    assert (info.num_images, info.manifest.sam) == (100, "vit_h")
    assert info.num_masks > 0
    scores = json.loads((tmp_path / "runs" / "refcoco-0.01-semires-cpi-u-seed0" / "scores.json").read_text())
    assert {name: found["num_samples"] for name, found in scores["by_split"].items()} == {
        "val": 8,
        "testA": 8,
        "testB": 8,
    }


def test_readme__a_first_mask(
    semires: Callable[..., Any], fenced: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "REFSHAPES", RefShapesConfig(num_train=1, num_val=1, num_test=1))
    lines = "".join(block.text for block in fenced("README.md", "sh", section="Install, and a first mask")).splitlines()
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("semires ")]
    assert [command[0] for command in commands] == ["make-refshapes", "predict"]
    for arguments in commands:
        finished = semires(*arguments)
        assert (finished.code, finished.err) == (0, ""), (arguments, finished)
    refshapes = ReferDataset.load(tmp_path / "data", "refshapes")
    (meant,) = (ref for ref in refshapes.refs_of("testA") if "purple ball on the right" in ref.expressions)
    true = refshapes.mask(meant)
    with Image.open(tmp_path / "reports" / "testA_000000_mask.png") as picture:
        mask = np.asarray(picture) > 0
    assert (mask & true).sum() / (mask | true).sum() > 0.8
