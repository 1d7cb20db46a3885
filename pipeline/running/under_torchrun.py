"""A run that several processes train, started from within one that does something else as well.

    python -m torch.distributed.run --standalone --nproc-per-node 4 -m semires.pipeline.running.under_torchrun FILE

FILE says in JSON what is trained; what the processes print is in `torchrun.log` of the run's folder.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from semires.pipeline.paths import Paths
from semires.pipeline.progress import progress
from semires.pipeline.running.processes import joined_ranks
from semires.pipeline.running.stage_runs import choose_device, train
from semires.stages.data.errors import InputError
from semires.stages.processes.stopping import StopRequested, StopSignals
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.checkpoints.replacing import replace_text

ORDER, LOG = "torchrun.json", "torchrun.log"


def train_under_torchrun(
    config: TrainConfig,
    paths: Paths,
    folder: Path,
    device: torch.device,
    num_processes: int,
    burn_in: Path | None,
    log_to: Sequence[str] = (),
) -> None:
    """Stage two by so many processes of this machine: on GPUs from that of `device` on, or on the CPU.

    InputError with what the processes had to say where they fail. A signal to this process ends them, their state
    saved.
    """
    order = {
        "config": config.to_dict(),
        "paths": {name: None if value is None else str(value) for name, value in asdict(paths).items()}
        | {"allow_missing": paths.allow_missing},
        "folder": str(folder),
        "burn_in": None if burn_in is None else str(burn_in),
        "device": device.type,
        "log_to": list(log_to),
    }
    replace_text(folder / ORDER, json.dumps(order, indent=1) + "\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    environment = dict(os.environ)
    if device.type == "cuda":
        first = device.index or 0
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = [str(number) for number in range(torch.cuda.device_count())] if visible is None else visible.split(",")
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[first : first + num_processes])
    log = folder / LOG
    with log.open("ab") as output, StopSignals() as stop:
        began = output.tell()
        process = subprocess.Popen(
            [*command, "-m", __name__, str(folder / ORDER)], stdout=output, stderr=output, env=environment
        )
        try:
            with stop.interruptible():
                process.wait()
        except StopRequested:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        said = log.read_bytes()[began:].decode(errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
        raise InputError(errors[-1] if errors else f"{num_processes} processes failed, what they said is in {log}")


def _run(order: dict[str, Any]) -> None:
    texts = {name: value for name, value in order["paths"].items() if name != "allow_missing" and value is not None}
    paths = Paths(**{name: Path(value) for name, value in texts.items()}, allow_missing=order["paths"]["allow_missing"])
    device = choose_device(order["device"])
    with joined_ranks(device) as ranks, progress(shown=ranks.is_main) as on_progress:
        train(
            TrainConfig.from_dict(order["config"]),
            paths,
            Path(order["folder"]),
            device,
            on_progress,
            burn_in=None if order["burn_in"] is None else Path(order["burn_in"]),
            log_to=order["log_to"] if ranks.is_main else (),
            ranks=ranks,
        )


if __name__ == "__main__":
    from semires.cache.errors import StoreError

    try:
        _run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except (InputError, StoreError) as refused:
        print(f"error: {refused}", file=sys.stderr)
        sys.exit(2)
