"""A run that several processes train, started from within one that does something else as well.

    python -m torch.distributed.run --standalone --nproc-per-node 4 -m semires.pipeline.running.under_torchrun FILE

FILE says in JSON what is trained. On the standard output the first process tells, in JSON too, what it would print and
how far it is; all else that the processes say is in `torchrun.log` of the run's folder. They end with their standard
input, a pipe of the process that started them.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import Any

import torch
import typer

from semires.cache.errors import StoreError
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress, console
from semires.pipeline.running.lines import lines_to
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
    on_progress: OnProgress,
    *,
    num_processes: int,
    burn_in: Path | None = None,
    log_to: Sequence[str] = (),
) -> None:
    """Stage two by so many processes of this machine: on GPUs from that of `device` on, or on the CPU, each with as
    many of torch's threads as this one has.

    InputError with what the processes had to say where they fail. A signal to this process ends them, their state
    saved; so does its own end.
    """
    order = {
        "config": config.to_dict(),
        "paths": {name: str(value) for name, value in asdict(paths).items() if isinstance(value, Path)},
        "allow_missing": paths.allow_missing,
        "folder": str(folder),
        "burn_in": None if burn_in is None else str(burn_in),
        "device": device.type,
        "log_to": list(log_to),
    }
    replace_text(folder / ORDER, json.dumps(order, indent=1) + "\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    log = folder / LOG
    with log.open("ab", buffering=0) as output, StopSignals() as stop:
        began = output.tell()
        process = subprocess.Popen(
            [*command, "-m", __name__, str(folder / ORDER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=_environment(device, num_processes),
            start_new_session=True,  # what reaches every process of a terminal is this one's to hear, and to pass on
        )
        assert process.stdout is not None
        with process:
            try:
                with stop.interruptible():
                    for line in process.stdout:
                        if not _pass_on(line, on_progress):
                            output.write(line)
            except StopRequested:
                process.terminate()
                for line in process.stdout:  # to its end, so that nobody waits to be heard
                    output.write(line)
                raise
    if process.returncode:
        said = log.read_bytes()[began:].decode(errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
        raise InputError(errors[-1] if errors else f"{num_processes} processes failed, what they said is in {log}")


def _environment(device: torch.device, num_processes: int) -> dict[str, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    if device.type == "cuda":
        first = device.index or 0
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = [str(number) for number in range(torch.cuda.device_count())] if visible is None else visible.split(",")
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[first : first + num_processes])
    return environment


def _pass_on(line: bytes, on_progress: OnProgress) -> bool:
    """Pass on what the first process tells; returns False for a line of somebody else's."""
    try:
        kind, *content = json.loads(line)
    except (ValueError, TypeError):
        return False
    if kind == "line":
        console.print(*content, soft_wrap=True)
    elif kind == "progress":
        on_progress(*content)
    return kind in ("line", "progress")


def _tell(kind: str, *content: Any) -> None:
    # Who started it may be dead, and the signal that `_end_with_starter` sends come later than this: the state is still
    # to be saved.
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps([kind, *content]), flush=True)


def _run(order: dict[str, Any]) -> None:
    _end_with_starter()
    folders = {name: Path(value) for name, value in order["paths"].items()}
    paths = Paths(**folders, allow_missing=order["allow_missing"])
    device = choose_device(order["device"])
    console.file = lines_to(lambda line: _tell("line", line))
    with joined_ranks(device) as ranks:
        train(
            TrainConfig.from_dict(order["config"]),
            paths,
            Path(order["folder"]),
            device,
            (lambda *what: _tell("progress", *what)) if ranks.is_main else (lambda *what: None),
            burn_in=None if order["burn_in"] is None else Path(order["burn_in"]),
            log_to=order["log_to"] if ranks.is_main else (),
            ranks=ranks,
        )


def _end_with_starter() -> None:
    """SIGTERM to this process where the one that started torchrun ends, however it ends."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    try:
        _run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except (InputError, StoreError) as refused:
        print(f"error: {refused}", file=sys.stderr)
        sys.exit(2)
    except typer.Exit as end:
        sys.exit(end.exit_code)
