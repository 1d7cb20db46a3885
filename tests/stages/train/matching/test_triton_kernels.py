"""The Triton backend: interpreted on the CPU, compiled for a GPU that need not be here, and run on one that is."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from semires.stages.train.labels.pwa import pwa_weights
from semires.stages.train.losses import supervised_loss, unsupervised_loss
from semires.stages.train.matching import MatchConfig, MatchResult, match, pack_bits
from semires.stages.train.matching.dispatch import backend_of
from semires.stages.train.matching.torch_ops import match_torch

STRATEGIES = ("iom", "cpi", "cpi-u", "cpi-o")
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, which torch's CUDA build brings")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

INTERPRET = """
import sys, torch
from semires.stages.train.matching.triton_kernels import match_triton
cases = torch.load(sys.argv[1], weights_only=False)
torch.save([match_triton(*case) for case in cases], sys.argv[2])
"""

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from semires.stages.train.matching import triton_kernels as kernels

def compiled(kernel, types, **constants):
    names = kernel.arg_names
    signature = dict(zip(names, types.split())) | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature, constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False}).asm["ptx"]

compiled(kernels._pack_labels, "*u8 *u8 i32 i32", BYTES=512)
types = "*i32 *i32 *i64 *fp64 *i32 i32 i32"
for code in range(4):
    ptx = compiled(kernels._judge_candidates, types, CODE=code, INTER1=0.7, INTER2=0.7, SAMPLES=4, WORDS=1024,
                   HAS_POPC=True)
    assert "popc.b32" in ptx and "div.rn.f64" in ptx
    # The bits of 0.7 as float64, with which scores are compared.
    assert code == 0 or "3FE6666666666666" in ptx
for is_iom in (True, False):
    compiled(kernels._write_refined, "*u8 *u8 *i64 *fp64 *i32 *u8 *u8 *i64 i32 i32", IS_IOM=is_iom, IOU_RATE=0.7,
             SCORES=256, PIXELS=4096)
print("compiled")
"""


def run_script(script: str, *arguments: Path, **environment: str) -> str:
    """What Python prints in a process of its own: Triton reads its settings from the environment when imported."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def batch(size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Packed candidates, offsets and labels: near copies with a tie, nothing alike, none, an empty label and mask."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(4, size, size, generator=generator) < 0.5
    labels[2] = False
    noise = torch.rand(8, size, size, generator=generator)
    candidates = labels[[0, 0, 0, 0, 2, 2, 3, 3]] ^ (noise < 0.2)
    candidates[2] = candidates[1]
    candidates[3] = False
    candidates[7] = noise[7] < 0.5
    return pack_bits(candidates), torch.tensor([0, 4, 4, 6, 8]), labels


def assert_equal(found: MatchResult, expected: MatchResult) -> None:
    assert torch.equal(found.refined.cpu(), expected.refined)
    assert torch.equal(found.matched.cpu(), expected.matched)
    assert torch.equal(found.chosen.cpu(), expected.chosen)
    assert found.scores is not None
    assert expected.scores is not None
    assert torch.equal(found.scores.cpu(), expected.scores)


def check_interpreted(cases: list[tuple[Tensor, Tensor, Tensor, int, MatchConfig, bool]], folder: Path) -> None:
    torch.save(cases, folder / "cases.pt")
    run_script(INTERPRET, folder / "cases.pt", folder / "found.pt", TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    found = torch.load(folder / "found.pt", weights_only=False)
    for case, result in zip(cases, found, strict=True):
        candidates, offsets, labels, size, config, _ = case
        assert_equal(result, match(candidates, offsets, labels, config, size=size, return_scores=True))


def config_of(strategy: str, rate: float) -> MatchConfig:
    return MatchConfig(strategy=strategy, iou_rate=rate, inter1=rate, inter2=rate)  # type: ignore[arg-type]


@needs_triton
def test_match_triton__interpreted_equals_the_cpu(tmp_path: Path) -> None:
    cases = [(*batch(5, seed), 5, config_of(strategy, 0.6), True) for seed, strategy in enumerate(STRATEGIES)]
    # Seven pixels of ten are not above 0.7, which float32 would not tell.
    label, candidate = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    label.view(-1)[:10] = True
    candidate.view(-1)[:7] = True
    exact = (pack_bits(candidate), torch.tensor([0, 1]), pack_bits(label), 4, config_of("cpi-u", 0.7), True)
    check_interpreted([*cases, exact], tmp_path)


@needs_triton
@pytest.mark.slow
def test_match_triton__interpreted_equals_the_cpu_at_many_sizes(tmp_path: Path) -> None:
    cases = [
        (*batch(size, seed), size, config_of(strategy, rate), True)
        for size in (1, 3, 8, 13, 70)
        for seed, strategy in enumerate(STRATEGIES)
        for rate in (0.0, 0.5, 0.7)
    ]
    check_interpreted(cases, tmp_path)


@needs_triton
@pytest.mark.slow
def test_match_triton__compiles_for_hopper(tmp_path: Path) -> None:
    """To machine code, without a GPU; counts by the instruction, divides and compares in float64."""
    assert run_script(COMPILE, TRITON_CACHE_DIR=str(tmp_path / "cache")) == "compiled\n"


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [5, 64, 480])
@pytest.mark.parametrize("offsets_on", ["cpu", "cuda"])
def test_match__cuda_equals_the_cpu(strategy: str, size: int, offsets_on: str) -> None:
    candidates, offsets, labels = batch(size, 0)
    config = config_of(strategy, 0.6)
    expected = match(candidates, offsets, labels, config, return_scores=True)
    for backend in {backend_of("cuda"), match_torch}:
        found = backend(candidates.cuda(), offsets.to(offsets_on), labels.cuda(), size, config, True)
        assert_equal(found, expected)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("backend_name", ["dispatched", "torch"])
def test_match__no_host_sync_with_weights_and_losses(strategy: str, backend_name: str) -> None:
    """Match, PWA and both losses with their gradients: torch refuses and the profiler finds no waiting call."""
    candidates, offsets, labels = batch(64, 0)
    candidates, labels = candidates.cuda(), labels.cuda()
    config = config_of(strategy, 0.6)
    backend = backend_of("cuda") if backend_name == "dispatched" else match_torch
    logits = torch.randn(4, 2, 64, 64, device="cuda", requires_grad=True)
    prob = torch.rand(4, 64, 64, device="cuda")

    def step() -> None:
        found = backend(candidates, offsets, labels, 64, config, True)
        loss = unsupervised_loss(logits, found.refined, found.matched, pwa_weights(prob))
        (loss + supervised_loss(logits, labels)).backward()

    step()  # compiles the kernels
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    names = [event.key for event in profile.key_averages()]
    # The profiler itself synchronises the device when it stops.
    assert not [name for name in names if name in ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")]
