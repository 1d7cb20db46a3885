"""A slip of the hand is said at once: before torch is imported, which takes seconds."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

MISTAKES: dict[tuple[str, ...], str] = {
    ("cache-sam",): "expected either --split NAME or --images FOLDER, found neither",
    ("cache-sam", "--split", "x"): "--split: expected one of refcoco, ",
    ("cache-sam", "--split", "x.jsonl"): "x.jsonl: expected a JSON-lines file, could not read it",
    ("cache-sam", "--split", "refcoco"): "no data for refcoco: expected ",
    ("cache-sam", "--split", "refshapes", "--as-stored"): "--as-stored: expected --images FOLDER with it",
    ("cache-sam", "--split", "refshapes", "--sam", "x"): "--sam: expected one of vit_h, ",
    ("cache-sam", "--split", "refshapes", "--sam-checkpoint", "x"): "--sam-checkpoint: expected a file, found nothing",
    ("cache-sam", "--split", "refshapes", "--concepts", "only", "--sam", "x"): "--concepts: expected --sam with",
    ("cache-sam", "--images", "x"): "--images: expected a folder of photographs, found no folder at x",
    ("cache-sam", "--images", ".", "--sam", "vit_b"): "SAM vit_b needs its weights: ",
    ("cache", "info", "x.zarr"): "x.zarr",
    ("cache", "show", "x.zarr", "1"): "x.zarr",
    ("data", "check", "refcoco"): "no data for refcoco: expected ",
    ("data", "check", "x.jsonl"): "x.jsonl: expected a JSON-lines file, could not read it",
    ("train", "--split", "x"): "--split: expected one of refcoco, ",
    ("train", "--split", "refcoco"): "no data for refcoco: expected ",
    ("evaluate", "x"): "expected a run of `semires train`, found no x/config.json",
    ("figure", "x"): "expected a run of `semires train`, found no x/config.json",
    ("study", "labels", "x"): "expected a run of `semires train`, found no x/config.json",
    ("demo", "--run", "x"): "expected a run of `semires train`, found no x/config.json",
    ("demo", "--sam", "vit_b"): "SAM vit_b needs its weights: ",
    ("predict", "x.png", "left"): "x.png: expected an image file, found none",
    ("predict", "a.png", "left", "--run", "x"): "expected a run of `semires train`, found no x/config.json",
    ("predict", "a.png", "left", "--sam", "vit_b"): "SAM vit_b needs its weights: ",
}

ALL = """
import sys
from semires.pipeline import cli
for mistake in {mistakes!r}:
    sys.argv = ["semires", *mistake]
    try:
        cli.main()
    except SystemExit as exit:
        print(exit.code, flush=True)
    if "torch" in sys.modules:
        print("torch was imported by", mistake)
        break
"""


def test_mistakes__are_said_before_torch_is_imported(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    code = ALL.format(mistakes=list(MISTAKES))
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert finished.stdout.split("\n") == ["2"] * len(MISTAKES) + [""]
    lines = finished.stderr.splitlines()
    for line, (mistake, said) in zip(lines, MISTAKES.items(), strict=True):
        assert line.startswith("error: "), mistake
        assert said in line, mistake
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]
