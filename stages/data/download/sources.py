"""Where data sets and weights come from: every file with its mirrors, size and checksum.

Looked up in November 2026. The checksums and sizes, and who measured them:

- refcoco, refcoco+, refcocog: TarunTomar122/attention-is-all-you-need-for-vlms, docs/datasets.md, of the Internet
  Archive's captures; refcoco+ also mohsin651/clip-sam-research, REFCOCOPLUS_REPRODUCTION.md. The captures are those
  that lichengunc/refer's issues 14, 22 and 26 link; `id_` in their address asks for the bytes as they were.
- coco-train2014: pytorch/vision, torchvision/prototype/datasets/_builtin/coco.py.
- sam-vit-h, sam-vit-l, sam-vit-b: computational-cell-analytics/micro-sam, micro_sam/util.py. What their file names end
  in is no part of it.
- bert: its commit 86b5e093 on the Hugging Face hub.
- swin-base: nobody who measured it was found, so its size is a rough one and there is no checksum.
"""

from dataclasses import dataclass
from pathlib import Path

_ARCHIVED = "https://web.archive.org/web/{capture}id_/https://bvisionweb1.cs.unc.edu/licheng/referit/data/{name}"
_REFER = "https://bvisionweb1.cs.unc.edu/licheng/referit/data/{name}"  # dead since 2022
_SAM = "https://dl.fbaipublicfiles.com/segment_anything/{name}"
_BERT = "https://huggingface.co/google-bert/bert-base-uncased/resolve/86b5e0934494bd15c9632b12f734a8a67f723594/{name}"
_SWIN = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/{name}"

DOWNLOADS = "downloads"
"""Folder below the data root: archives, what has come of files so far, and what was unpacked."""
WEIGHTS = "weights"
"""Folder below the data root for weights."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file as it is served."""

    path: str
    """Below the folder that the source's files go to, and below a mirror; `/` between its parts."""
    urls: tuple[str, ...]
    """Mirrors, in the order they are tried."""
    size: int
    """Bytes; a rough number where `is_size_known` is false."""
    sha256: str | None
    """Hexadecimal; None where nobody is known to have measured it."""
    is_size_known: bool = True


@dataclass(frozen=True, kw_only=True)
class Unpacking:
    """What becomes of an archive."""

    inside: str
    """The folder in the archive that is wanted."""
    folder: str
    """Where it goes, below the data root."""
    needed: tuple[str, ...] = ()
    """Files that must be in it."""
    num_files: int = 1
    """How many files it has at least."""
    size: int
    """Bytes that all of it takes, roughly."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What `semires data download` knows by one name."""

    name: str
    what: str
    """In a few words."""
    folder: str
    """Where its files go, below the data root."""
    files: tuple[SourceFile, ...]
    unpacking: Unpacking | None = None
    """Of its one file; None for files that are used as they are."""
    option: str = ""
    """How commands are told of it, with {} for the path; "" where they look there by themselves."""

    def target(self, root: Path) -> Path:
        """The file or folder that the user gets."""
        if self.unpacking is not None:
            return root / self.unpacking.folder
        return root / self.folder / self.files[0].path.split("/")[0]

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(file.size for file in self.files)


def _refer(name: str, capture: str, size: int, sha256: str, refs: tuple[str, ...]) -> Source:
    """One of refer's three archives of annotations."""
    archive = f"{name}.zip"
    return Source(
        name=name,
        what="annotations and expressions",
        folder=DOWNLOADS,
        files=(
            SourceFile(
                path=archive,
                urls=(_ARCHIVED.format(capture=capture, name=archive), _REFER.format(name=archive)),
                size=size,
                sha256=sha256,
            ),
        ),
        unpacking=Unpacking(inside=name, folder=name, needed=("instances.json", *refs), size=200_000_000),
    )


def _weights(name: str, what: str, url: str, option: str, size: int, sha256: str | None) -> Source:
    """One file of weights, used as it is."""
    path = url.rpartition("/")[2]
    file = SourceFile(path=path, urls=(url,), size=size, sha256=sha256, is_size_known=sha256 is not None)
    return Source(name=name, what=what, folder=WEIGHTS, files=(file,), option=option)


def _bert(name: str, size: int, sha256: str) -> SourceFile:
    return SourceFile(path=f"bert-base-uncased/{name}", urls=(_BERT.format(name=name),), size=size, sha256=sha256)


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        _refer(
            "refcoco",
            "20220413011718",
            53_993_993,
            "7f924bb7ed8dc4568058e4ff626281918d56e5206f4c868c5a80f088f38c8bf0",
            ("refs(unc).p",),
        ),
        _refer(
            "refcoco+",
            "20220413011656",
            45_613_210,
            "5f1238112d63199e68da54a28f201471909b21ded7ed79a57d51b4c1443c6b45",
            ("refs(unc).p",),
        ),
        _refer(
            "refcocog",
            "20220413012904",
            56_712_951,
            "3d1f7e5b2ff2205940bf59de55f861f5f2cc1403fb980669933a7f9af1aa8211",
            ("refs(umd).p", "refs(google).p"),
        ),
        Source(
            name="coco-train2014",
            what="the images of all three",
            folder=DOWNLOADS,
            files=(
                SourceFile(
                    path="train2014.zip",
                    urls=(
                        "http://images.cocodataset.org/zips/train2014.zip",
                        "https://s3.amazonaws.com/images.cocodataset.org/zips/train2014.zip",
                    ),
                    size=13_510_573_713,
                    sha256="ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
                ),
            ),
            unpacking=Unpacking(
                inside="train2014",
                folder="images/mscoco/images/train2014",
                num_files=82_783,
                size=13_600_000_000,
            ),
        ),
        _weights(
            "sam-vit-h",
            "SAM ViT-H, stage one",
            _SAM.format(name="sam_vit_h_4b8939.pth"),
            "--sam vit_h --sam-checkpoint {}",
            2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
        _weights(
            "sam-vit-l",
            "SAM ViT-L, stage one",
            _SAM.format(name="sam_vit_l_0b3195.pth"),
            "--sam vit_l --sam-checkpoint {}",
            1_249_524_607,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        _weights(
            "sam-vit-b",
            "SAM ViT-B, stage one",
            _SAM.format(name="sam_vit_b_01ec64.pth"),
            "--sam vit_b --sam-checkpoint {}",
            375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        _weights(
            "swin-base",
            "Swin-B of LAVT, stage two",
            _SWIN.format(name="swin_base_patch4_window12_384_22k.pth"),
            "--swin {}",
            450_000_000,
            None,
        ),
        Source(
            name="bert",
            what="BERT-base-uncased of LAVT, stage two",
            folder=WEIGHTS,
            files=(
                _bert("config.json", 570, "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20"),
                _bert("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
                _bert("tokenizer_config.json", 48, "a025160ef0431f1a392f6f050c1310f4c5d9fb6f275932dbccba73c4d214bf10"),
                _bert("tokenizer.json", 466_062, "ce64fce797c24f68df90b40a3f74f579b336a493db14bd583fd520ea0d8c9a98"),
                _bert(
                    "model.safetensors", 440_449_768, "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3"
                ),
            ),
            option="--bert {}",
        ),
    )
}
"""By name, in the order in which they are listed."""
