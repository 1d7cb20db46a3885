"""What tests of several modules share: a RefShapes of a few scenes, a store of their true masks, original layouts."""

import dataclasses
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

os.environ["HF_HUB_OFFLINE"] = "1"  # before it is imported: a hub that cannot be reached is asked again for 20 s

import numpy as np
import pytest
import torch
from torch import Tensor

from semires.cache.candidates import Candidates
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter
from semires.stages.data.refer import ReferDataset
from semires.stages.data.refshapes.scene import make_scene
from semires.stages.data.refshapes.writer import RefShapesConfig, write_refshapes


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores: a test that waits for processes of its own leaves a core idle."""
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of whole processes first, which take longest: begun last, one worker would wait for the other."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)  # keeps the order of all else


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and results do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def refshapes_config() -> RefShapesConfig:
    """12 train, 4 val, 3 testA and 3 testB images."""
    return RefShapesConfig(num_train=12, num_val=4, num_test=3)


@pytest.fixture(scope="session")
def refshapes_root(tmp_path_factory: pytest.TempPathFactory, refshapes_config: RefShapesConfig) -> Path:
    """A data root with a RefShapes of `refshapes_config` in it; shared, so only to be read."""
    root = tmp_path_factory.mktemp("data")
    write_refshapes(root, refshapes_config)
    return root


@pytest.fixture(scope="session")
def refshapes(refshapes_root: Path) -> ReferDataset:
    """The data set at `refshapes_root`."""
    return ReferDataset.load(refshapes_root, "refshapes")


@pytest.fixture(scope="session")
def without_masks(refshapes: ReferDataset) -> Callable[[Iterable[int]], ReferDataset]:
    """`without_masks(ref_ids)`: the data set as own data has it where nobody has drawn the masks of these refs."""

    def make(ref_ids: Iterable[int]) -> ReferDataset:
        unknown = set(ref_ids)
        refs = tuple(dataclasses.replace(ref, has_mask=ref.ref_id not in unknown) for ref in refshapes.refs)
        segmentations = {ref.ann_id: refshapes.segmentation(ref) for ref in refs if ref.has_mask}
        return ReferDataset(
            refshapes.spec,
            refs,
            refshapes.problems,
            refshapes.image_folder,
            {image_id: refshapes.image_record(image_id) for image_id in refshapes.image_ids},
            {ann_id: mask for ann_id, mask in segmentations.items() if mask is not None},
            {ref.category_id: refshapes.category(ref) for ref in refs},
        )

    return make


@pytest.fixture(scope="session")
def refshapes_store(
    tmp_path_factory: pytest.TempPathFactory, refshapes: ReferDataset, refshapes_config: RefShapesConfig
) -> Path:
    """A store of the train images' true parts and wholes, as a SAM without faults would give; only to be read."""
    location = tmp_path_factory.mktemp("store") / "refshapes.zarr"
    manifest = Manifest(split="refshapes", sam="tiny", sam_sha256="0" * 64, num_images=refshapes_config.num_train)
    with StoreWriter(location, manifest) as writer:
        for index in range(refshapes_config.num_train):
            scene = make_scene("train", refshapes_config.seed, index)
            masks = np.concatenate([scene.object_masks, scene.part_masks[_is_part_of_composite(scene.part_owner)]])
            points = [np.argwhere(mask)[0][::-1] for mask in masks]
            # The writer numbers images from 1, those of the train split first.
            writer.add(Candidates.from_masks(index + 1, masks, np.ones(len(masks)), np.ones(len(masks)), points))
    return location


def _is_part_of_composite(part_owner: np.ndarray) -> np.ndarray:
    return np.bincount(part_owner)[part_owner] > 1


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless chromium, as selenium drives it; skipped, saying so, where the machine has none."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install 'semires[dev]')")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *(
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
        ),
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        # Given where both lie, selenium looks for neither and fetches nothing.
        found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        yield found
        found.quit()


@pytest.fixture(autouse=True)
def heard_interrupts() -> Iterator[None]:
    """SIGINT and SIGHUP as at a terminal: a suite started in a shell's background, or by nohup, inherits them ignored,
    and its children too."""
    heard = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {signum: signal.getsignal(signum) for signum in heard}
    for signum, handler in heard.items():
        if before[signum] is signal.SIG_IGN:
            signal.signal(signum, handler)
    yield
    for signum, was in before.items():
        signal.signal(signum, was)


@dataclass
class Served:
    """A web server on loopback with `files` by path, which misbehaves as it is told."""

    files: dict[str, bytes]
    url: str = ""
    knows_ranges: bool = True
    etag: str | None = '"1"'
    tells_length: bool = True
    cuts: list[int] = field(default_factory=list)
    """After how many bytes the next answers end; then they are whole."""
    statuses: list[int] = field(default_factory=list)
    """What the next answers are in place of 200."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Where paths lead."""
    delay: float = 0.0
    """Seconds before each answer."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range of every request."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, asked_range = unquote(request.path), request.headers.get("Range")
        self.asked.append((path, asked_range))
        time.sleep(self.delay)
        if path.lstrip("/") in self.redirects:
            request.send_response(302)
            request.send_header("Location", self.redirects[path.lstrip("/")])
            request.end_headers()
            return
        content = self.files.get(path.lstrip("/"))
        if content is None or self.statuses:
            request.send_error(self.statuses.pop(0) if self.statuses else 404)
            return
        start, is_part = 0, False
        if asked_range is not None and self.knows_ranges and request.headers.get("If-Range") in (None, self.etag):
            start, is_part = int(asked_range.removeprefix("bytes=").rstrip("-")), True
            if start >= len(content):
                request.send_error(416)
                return
        body = content[start:]
        request.send_response(206 if is_part else 200)
        if is_part:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.tells_length:
            request.send_header("Content-Length", str(len(body)))
        if self.etag is not None:
            request.send_header("ETag", self.etag)
        request.end_headers()
        request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


class _Server(ThreadingHTTPServer):
    """Ends with its last answer, and is not shaken by clients that went away."""

    daemon_threads = False  # so that closing it waits for them

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    """Serve files over HTTP on loopback, each call on a server of its own."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers: list[ThreadingHTTPServer] = []

    def start(files: dict[str, bytes], **how: Any) -> Served:
        served = Served(files, **how)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = _Server(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        served.url = f"http://127.0.0.1:{server.server_port}"
        return served

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _swin_shapes(*, embed_dim: int, depths: Sequence[int], heads: Sequence[int], window: int) -> dict[str, list[int]]:
    """Microsoft's Swin as LAVT has it: without last norm and head, with its integer buffers."""
    shapes = {"patch_embed.proj.weight": [embed_dim, 3, 4, 4], "patch_embed.proj.bias": [embed_dim]}
    shapes |= {"patch_embed.norm.weight": [embed_dim], "patch_embed.norm.bias": [embed_dim]}
    for stage, depth in enumerate(depths):
        dim = embed_dim * 2**stage
        for block in range(depth):
            at = f"layers.{stage}.blocks.{block}"
            shapes[f"{at}.attn.relative_position_bias_table"] = [(2 * window - 1) ** 2, heads[stage]]
            shapes[f"{at}.attn.relative_position_index"] = [window**2, window**2]
            for name, rows, columns in (
                ("attn.qkv", 3 * dim, dim),
                ("attn.proj", dim, dim),
                ("mlp.fc1", 4 * dim, dim),
                ("mlp.fc2", dim, 4 * dim),
            ):
                shapes |= {f"{at}.{name}.weight": [rows, columns], f"{at}.{name}.bias": [rows]}
            for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
                shapes[f"{at}.{name}"] = [dim]
        if stage < len(depths) - 1:
            at = f"layers.{stage}.downsample"
            shapes |= {f"{at}.norm.weight": [4 * dim], f"{at}.norm.bias": [4 * dim]}
            shapes[f"{at}.reduction.weight"] = [2 * dim, 4 * dim]
    return shapes


def _bert_shapes(*, hidden: int, layers: int, vocab: int, positions: int) -> dict[str, list[int]]:
    shapes = {"embeddings.word_embeddings.weight": [vocab, hidden]}
    shapes |= {"embeddings.position_embeddings.weight": [positions, hidden]}
    shapes |= {"embeddings.token_type_embeddings.weight": [2, hidden]}
    shapes |= {"embeddings.LayerNorm.weight": [hidden], "embeddings.LayerNorm.bias": [hidden]}
    for layer in range(layers):
        at = f"encoder.layer.{layer}"
        for name, rows, columns in (
            *((f"attention.self.{part}", hidden, hidden) for part in ("query", "key", "value")),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", 2 * hidden, hidden),
            ("output.dense", hidden, 2 * hidden),
        ):
            shapes |= {f"{at}.{name}.weight": [rows, columns], f"{at}.{name}.bias": [rows]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}.{name}.weight": [hidden], f"{at}.{name}.bias": [hidden]}
    return shapes


def _fusion_shapes(embed_dim: int, hidden: int) -> dict[str, list[int]]:
    """What LAVT adds to its backbone, and its decoder."""
    shapes: dict[str, list[int]] = {}
    for stage in range(4):
        dim, at = embed_dim * 2**stage, f"backbone.layers.{stage}"
        for name, columns in (
            ("vis_project.0", dim),
            ("image_lang_att.f_key.0", hidden),
            ("image_lang_att.f_query.0", dim),
            ("image_lang_att.f_value.0", hidden),
            ("image_lang_att.W.0", dim),
            ("project_mm.0", dim),
        ):
            shapes |= {f"{at}.fusion.{name}.weight": [dim, columns, 1], f"{at}.fusion.{name}.bias": [dim]}
        shapes |= {f"{at}.res_gate.0.weight": [dim, dim], f"{at}.res_gate.2.weight": [dim, dim]}
        shapes |= {f"backbone.norm{stage}.weight": [dim], f"backbone.norm{stage}.bias": [dim]}
    width = incoming = 4 * embed_dim
    for level, finer in ((4, 4), (3, 2), (2, 1)):
        incoming = 8 * embed_dim if level == 4 else width
        shapes[f"classifier.conv1_{level}.weight"] = [width, incoming + finer * embed_dim, 3, 3]
        shapes[f"classifier.conv2_{level}.weight"] = [width, width, 3, 3]
        for norm in (f"classifier.bn1_{level}", f"classifier.bn2_{level}"):
            shapes |= {f"{norm}.{name}": [width] for name in ("weight", "bias", "running_mean", "running_var")}
            shapes[f"{norm}.num_batches_tracked"] = []
    return shapes | {"classifier.conv1_1.weight": [2, width, 1, 1], "classifier.conv1_1.bias": [2]}


def _random_tensors(shapes: dict[str, list[int]], window: int) -> dict[str, Tensor]:
    """Small weights, positive variances, and the integer buffers as the original code makes them."""
    generator = torch.Generator().manual_seed(len(shapes))
    tensors = {name: torch.randn(shape, generator=generator) / 5 for name, shape in shapes.items()}
    places = [(y, x) for y in range(window) for x in range(window)]
    side = 2 * window - 1
    index = [[(a - c + window - 1) * side + b - d + window - 1 for c, d in places] for a, b in places]
    for name in tensors:
        if name.endswith("relative_position_index"):
            tensors[name] = torch.tensor(index)
        elif name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(1234)
        elif name.endswith("running_var"):
            tensors[name] = tensors[name].abs() + 0.5
    return tensors


SMALL = {"embed_dim": 8, "depths": (1, 1, 2, 1), "heads": (1, 2, 4, 8), "window": 7}


@pytest.fixture(scope="session")
def swin_tensors() -> Callable[..., dict[str, Tensor]]:
    """The state dict of a small Swin classifier by Microsoft's names, `attn_mask` of shifted blocks included."""

    def make(**sizes: Any) -> dict[str, Tensor]:
        sizes = SMALL | sizes
        top = sizes["embed_dim"] * 8
        shapes = _swin_shapes(**sizes) | {"norm.weight": [top], "norm.bias": [top]}
        shapes |= {
            "head.weight": [5, top],
            "head.bias": [5],
            f"layers.2.blocks.{sizes['depths'][2] - 1}.attn_mask": [4, 9, 9],
        }
        return _random_tensors(shapes, sizes["window"])

    return make


@pytest.fixture(scope="session")
def lavt_tensors() -> Callable[..., dict[str, Tensor]]:
    """The state dict of a small LAVT by the names of its original code's `lavt_one`."""

    def make(*, hidden: int = 16, layers: int = 2, vocab: int = 200, positions: int = 32, **sizes: Any) -> Any:
        sizes = SMALL | sizes
        shapes = {f"backbone.{name}": shape for name, shape in _swin_shapes(**sizes).items()}
        shapes |= _fusion_shapes(sizes["embed_dim"], hidden)
        bert = _bert_shapes(hidden=hidden, layers=layers, vocab=vocab, positions=positions)
        return _random_tensors(shapes | {f"text_encoder.{n}": shape for n, shape in bert.items()}, sizes["window"])

    return make


@pytest.fixture
def small_sam2_config() -> Any:
    """A SAM 2 that computes in no time, of transformers'."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    widths = [8, 16, 32, 64]
    hiera = Sam2HieraDetConfig(
        hidden_size=8, blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=widths, global_attention_blocks=[3]
    )
    vision = Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=32,
    )
    return Sam2Config(
        vision_config=vision,
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=32, image_size=128),
        mask_decoder_config=Sam2MaskDecoderConfig(hidden_size=32),
    )


@pytest.fixture(scope="session")
def sam3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SAM 3 with random weights and its tracker, tokenizer and processor, laid out as facebook/sam3 is: 84
    pixels a side, logits of 24, 5 queries. Scores and masks differ between words and queries."""
    import transformers
    from safetensors.torch import save_file
    from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor

    grid = 6
    vit = {"model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    vit |= {"num_attention_heads": 2, "image_size": 14 * grid, "window_size": 3, "global_attn_indexes": [1]}
    vision = {
        "backbone_config": vit | {"pretrain_image_size": 42},
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[scale * grid] * 2 for scale in (4, 2, 1)],
    }
    small = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    text = {"model_type": "clip_text_model", "vocab_size": len(pieces), "hidden_size": 16, "intermediate_size": 32}
    text |= {"projection_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    detector_config = {
        "vision_config": vision,
        "text_config": text | {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
        "geometry_encoder_config": small | {"num_layers": 1},
        "detr_encoder_config": small | {"num_layers": 1},
        "detr_decoder_config": small | {"num_layers": 2, "num_queries": 5},
        "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 4},
    }
    tracker = {"model_type": "sam3_tracker_video", "vision_config": vision, "image_size": 14 * grid}
    tracker |= {"prompt_encoder_config": {"hidden_size": 32, "image_size": 14 * grid}}
    tracker |= {"mask_decoder_config": {"hidden_size": 32, "mlp_dim": 64}, "memory_attention_hidden_size": 32}
    tracker |= {"memory_attention_feed_forward_hidden_size": 32, "memory_attention_num_layers": 1}
    tracker |= {"memory_encoder_hidden_size": 32, "memory_encoder_output_channels": 16}
    tracker |= {"mask_downsampler_embed_dim": 32, "memory_fuser_embed_dim": 32, "memory_fuser_intermediate_dim": 32}
    folder = tmp_path_factory.mktemp("models") / "sam3-small"
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = transformers.Sam3VideoModel(
            transformers.Sam3VideoConfig(detector_config=detector_config, tracker_config=tracker)
        )
        for module in model.modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Embedding)):
                module.reset_parameters()  # transformers' own are so small that all answers look alike
        detector = model.detector_model
        for layer in (detector.dot_product_scoring.text_proj, *detector.mask_decoder.mask_embedder.layers):
            layer.weight.mul_(4)
        detector.detr_decoder.presence_head.layer3.bias.add_(4)
        # The mean pixel is taken out of what masks are read with, so that they are neither empty nor full.
        seen: list[Tensor] = []
        projection = detector.mask_decoder.instance_projection
        hook = projection.register_forward_hook(lambda *call: seen.append(call[-1]))
        detector(pixel_values=torch.randn(1, 3, 14 * grid, 14 * grid), input_ids=torch.arange(8)[None])
        hook.remove()
        projection.bias.sub_(seen[0].mean(dim=(0, 2, 3)))
    model.config.architectures = ["Sam3VideoModel"]
    model.config.save_pretrained(folder)
    # Under the names of the hub's file: transformers 5.23 writes those of the tracker with their prefix twice.
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer = transformers.CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], unk_token="<|endoftext|>"
    )
    image_processor = Sam3ImageProcessor(size={"height": 14 * grid, "width": 14 * grid})

    transformers.Sam3Processor(image_processor, tokenizer).save_pretrained(folder)
    return folder
