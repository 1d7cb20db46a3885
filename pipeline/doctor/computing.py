"""Computing: torch, its devices, and what training, matching and stage one choose on them. All of it asks the code that
chooses; torch is imported here."""

from collections.abc import Iterator

from semires.pipeline.doctor.findings import Finding, gibibytes


def look_at_computing() -> Iterator[Finding]:
    """torch and its devices, and on the one that commands take by themselves: precisions, backends, compiling."""
    import torch

    from semires.pipeline.running.stage_runs import choose_device
    from semires.stages.cache_sam.generator.settings import GeneratorSettings, precision_of
    from semires.stages.train.engine.precision import resolve_precision
    from semires.stages.train.matching.dispatch import backend_of

    built = (
        f"CUDA {torch.version.cuda}"
        if torch.version.cuda
        else f"ROCm {torch.version.hip}"
        if torch.version.hip
        else "CPU only"
    )
    yield Finding(what="torch", found=f"{torch.__version__}, built for {built}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(number)
            found = f"{device.name}, {gibibytes(device.total_memory)}, compute capability {device.major}.{device.minor}"
            found += ", bfloat16 in hardware" if device.major >= 8 else ", no bfloat16 in hardware"
            yield Finding(what=f"cuda:{number}", found=found)
    elif torch.version.cuda:
        yield Finding(
            what="CUDA", found="no device, or no driver of NVIDIA's", state="missing", remedy="nvidia-smi says which"
        )
    if torch.backends.mps.is_available():
        yield Finding(what="mps", found="Apple's GPU; stage one needs float64 and runs on the CPU")
    chosen = choose_device(None)
    yield Finding(what="--device, if not given", found=str(chosen))
    yield Finding(what="precision of training", found=str(resolve_precision("auto", chosen)))
    stage_one = chosen if chosen.type != "mps" else torch.device("cpu")
    prompts = GeneratorSettings().on(stage_one).points_per_batch
    found = f"{precision_of(None, stage_one)} on {stage_one}"
    yield Finding(
        what="mask generator", found=found if stage_one.type == "cpu" else f"{found}, {prompts} prompts at once"
    )
    backend = backend_of(chosen.type)
    yield Finding(what="matching", found=f"{backend.__name__} ({backend.__module__.rpartition('.')[2]}.py)")
    if chosen.type == "cuda" and backend.__name__ != "match_triton":
        yield Finding(
            what="Triton",
            found="not here: matching takes torch's operators",
            state="missing",
            remedy="pip install triton",
        )
