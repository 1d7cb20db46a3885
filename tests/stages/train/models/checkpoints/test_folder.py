import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from semires.stages.data.errors import InputError
from semires.stages.train.models import ResModel
from semires.stages.train.models.build import build_model
from semires.stages.train.models.checkpoints import hub
from semires.stages.train.models.checkpoints.folder import is_model_folder, open_model, save_model
from semires.stages.train.models.checkpoints.model_card import CardFacts
from semires.stages.train.models.checkpoints.origin import Origin
from semires.stages.train.models.clipseg import ClipSeg
from semires.stages.train.models.lavt import Lavt

TOKENIZER = {"class": "BertTokenizer", "max_tokens": 20, "keep_sep": True}
EXPRESSIONS = ["left girl in red", "the SMALL house, behind a tree", ""]


@pytest.fixture
def nano() -> Lavt:
    torch.manual_seed(3)
    model = build_model("nano", pretrained=False).eval()
    assert isinstance(model, Lavt)
    return model


@torch.no_grad()
def assert_same(found: ResModel, expected: ResModel) -> None:
    assert not found.training
    assert found.image_size == expected.image_size
    tokens, own = found.tokenizer(EXPRESSIONS), expected.tokenizer(EXPRESSIONS)
    assert all(torch.equal(a, b) for a, b in zip(tokens, own, strict=True))
    images = torch.randn(3, 3, found.image_size, found.image_size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found(images, *tokens), expected(images, *own))


def test_save_pretrained__lavt(nano: Lavt, tmp_path: Path) -> None:
    nano.save_pretrained(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    ]
    assert len({path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}) == 1
    found = Lavt.from_pretrained(tmp_path / "model")
    assert found.config == nano.config
    assert_same(found, nano)
    assert is_model_folder(tmp_path / "model")
    assert not is_model_folder(tmp_path)
    assert "Not measured" in (tmp_path / "model" / "README.md").read_text()


def test_save_pretrained__clipseg(clipseg: Path, tmp_path: Path) -> None:
    model = build_model("clipseg", pretrained=True, clipseg=str(clipseg), image_size=40).eval()
    model.save_pretrained(tmp_path / "model")
    found = ResModel.from_pretrained(str(tmp_path / "model"))
    assert isinstance(found, ClipSeg)
    assert_same(found, model)
    with pytest.raises(InputError, match=r"expected a Lavt, found a ClipSeg in .*ClipSeg\.from_pretrained"):
        Lavt.from_pretrained(tmp_path / "model")


OWN_MODEL = """
import torch
from torch import nn
from semires.stages.train.models import ResModel, Tokenizer
from semires.stages.train.models.build import weights_folder

class Own(ResModel):
    def __init__(self):
        super().__init__()
        self.image_size = 16
        self.tokenizer = Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt")
        self.classify = nn.Conv2d(3, 2, 1)
        self.tied = self.classify

    def forward(self, images, input_ids, attention_mask):
        return self.tied(images) + input_ids.sum()

def build(*, pretrained):
    return Own()
"""


def test_save_pretrained__model_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_folder_model.py").write_text(OWN_MODEL)
    model = build_model("own_folder_model:build", pretrained=True).eval()
    model.save_pretrained("model")
    assert_same(ResModel.from_pretrained("model"), model)
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **options: str(tmp_path / "model"))
    with pytest.raises(InputError, match="found one that runs own_folder_model:build"):
        ResModel.from_pretrained("somebody/model")
    model.factory = None
    with pytest.raises(InputError, match=r"found a Own: make it with build_model"):
        model.save_pretrained("other")
    assert not (tmp_path / "other").exists()


def test_open_model__in_a_new_process_with_nothing_else(nano: Lavt, tmp_path: Path) -> None:
    nano.save_pretrained(tmp_path / "model")
    script = (
        "import warnings; warnings.simplefilter('error')\n"
        "from semires.stages.train.models.lavt import Lavt\n"
        "model = Lavt.from_pretrained('model')\n"
        "total = sum(parameter.double().sum() for parameter in model.parameters()).item()\n"
        "print(model.training, model.tokenizer.tokens('left girl'), total)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "no_cache"), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    total = sum(parameter.double().sum() for parameter in nano.parameters()).item()
    assert finished.stdout.split() == ["False", *str(nano.tokenizer.tokens("left girl")).split(), str(total)]


def test_save_model__keeps_the_card_and_replaces(nano: Lavt, tmp_path: Path) -> None:
    facts = CardFacts(title="Mine {}", about="About.", measured="val oIoU 12.30", made="By hand.")
    save_model(nano, tmp_path / "model", facts)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "# Mine {}" in card
    assert "val oIoU 12.30" in card
    assert "Not measured" not in card
    again = Lavt.from_pretrained(tmp_path / "model")
    again.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_text() == card
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("")
    with pytest.raises(InputError, match=r"with other files \(e\.g\. a\.jpg\)"):
        again.save_pretrained(tmp_path / "photos")


def test_save_model__origin_travels(nano: Lavt, tmp_path: Path) -> None:
    name = "backbone.layers.2.blocks.1.attn.relative_position_index"
    index = torch.randint(0, 49, (16, 16), generator=torch.Generator().manual_seed(0))
    unread = {name: index, "backbone.layers.3.res_gate.0.weight": torch.randn(2, 2)}
    nano.origin = Origin(layout="lavt", file="best.pth", sha256="0" * 64, epoch=3, absent=("x",), unread=unread)
    nano.save_pretrained(tmp_path / "model")
    found = Lavt.from_pretrained(tmp_path / "model")
    assert found.origin is not None
    assert found.origin.to_dict() == nano.origin.to_dict()
    assert all(torch.equal(found.origin.unread[name], tensor) for name, tensor in unread.items())
    bias = found.visual.layers[2].blocks[1].attention.relative_position_bias
    assert torch.equal(bias.relative_position_index, index.flatten())
    nano.origin = Origin(layout="lavt", file="", sha256="", unread={name: index + 40})
    nano.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=r"int64 \[16, 16\] from 0 to 48"):
        Lavt.from_pretrained(tmp_path / "model")


def changed(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "expected version 1 of the model folder, found 2"),
        ({"format": None}, "found another program's config.json"),
        ({"colour": "red"}, "expected format, version, .*found colour"),
        ({"model": "resnet"}, "expected model lavt, clipseg or PACKAGE.MODULE:FACTORY in .*found 'resnet'"),
        ({"model": 3}, "found 3"),
        ({"settings": {"image_size": 96}}, "expected all keys of LavtConfig"),
        ({"settings": {"depth": 96}}, "expected keys of LavtConfig, found depth"),
        ({"settings": None}, "expected all keys of LavtConfig"),
        ({"model": "clipseg"}, "expected image_size and network of a CLIPSeg"),
        ({"model": "clipseg", "settings": {"image_size": 32, "network": {"projection_dim": "x"}}}, "of a CLIPSeg"),
        ({"tokenizer": None}, "expected a tokenizer with class, max_tokens"),
        ({"tokenizer": {"class": "BertTokenizer", "max_tokens": 20}}, "expected a tokenizer with class, max_tokens"),
        ({"tokenizer": TOKENIZER | {"max_tokens": "20"}}, "expected max_tokens as int"),
        ({"tokenizer": TOKENIZER | {"keep_sep": 1}}, "expected keep_sep as bool"),
        ({"tokenizer": TOKENIZER | {"class": "BertModel"}}, "expected a tokenizer class.*'BertModel'"),
        ({"tokenizer": TOKENIZER | {"class": "Nonsense"}}, "expected a tokenizer class.*'Nonsense'"),
        ({"origin": {"layout": "lavt"}}, "expected an origin of layout"),
        ({"origin": {"layout": "x", "file": "", "sha256": "", "epoch": 1, "absent": []}}, "expected an origin"),
    ],
)
def test_open_model__other_config(nano: Lavt, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    nano.save_pretrained(tmp_path / "model")
    changed(tmp_path / "model", **changes)
    with pytest.raises(InputError, match=message) as caught:
        open_model(tmp_path / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "expected a model folder"),
        ("config.json", "{", "found a damaged file"),
        ("config.json", "[]", "another program's"),
        ("model.safetensors", None, "expected a model's weights"),
        ("model.safetensors", "nonsense", "unreadable"),
        ("tokenizer.json", None, "expected a BERT"),
    ],
)
def test_open_model__damaged_files(nano: Lavt, tmp_path: Path, name: str, content: str | None, message: str) -> None:
    nano.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        open_model(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_open_model__other_weights(nano: Lavt, tmp_path: Path) -> None:
    nano.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    del weights["decoder.classify.bias"]
    save_file(weights | {"more": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"1 unknown \(more\), 1 missing \(decoder\.classify\.bias\)"):
        open_model(tmp_path / "model")


def test_hub__there_and_back(nano: Lavt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushed to a folder in place of the hub, and opened from there by its name."""

    class Repo:
        repo_id = "me/model"

    def upload(self: HfApi, *, repo_id: str, folder_path: Path, **options: object) -> str:
        folder_path.rename(tmp_path / repo_id.replace("/", "--"))
        return f"https://hub/{repo_id}"

    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options)
        return str(tmp_path / name.replace("/", "--"))

    monkeypatch.setattr(HfApi, "create_repo", lambda self, **options: Repo())
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert nano.save_pretrained(tmp_path / "local", push_to_hub=True, repo_id="me/model") == "https://hub/me/model"
    assert is_model_folder(tmp_path / "local")
    assert_same(Lavt.from_pretrained("me/model", revision="main"), nano)
    assert asked["revision"] == "main"
    assert "model.safetensors" in asked["allow_patterns"]  # type: ignore[operator]


def test_hub__failures_are_one_line(nano: Lavt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect\nand more lines")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    monkeypatch.setattr(HfApi, "create_repo", unreachable)
    with pytest.raises(InputError, match=r"found neither at me/model \(We couldn't connect\)") as caught:
        Lavt.from_pretrained("me/model")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"could not push to me/model .*\(We couldn't connect\)") as caught:
        nano.push_to_hub("me/model")
    assert "\n" not in str(caught.value)
    for path in (tmp_path / "absent", "./absent", "~/absent"):
        with pytest.raises(InputError, match=r"found neither at .*: check the path"):
            Lavt.from_pretrained(path)


def test_hub__offline_and_impossible_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="found neither at me/model"):
        Lavt.from_pretrained("me/model", local_files_only=True, cache_dir=tmp_path)
    with pytest.raises(InputError, match="found neither at a/b/c"):
        Lavt.from_pretrained("a/b/c", local_files_only=True, cache_dir=tmp_path)
