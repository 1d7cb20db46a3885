"""Where a run's metrics go beside its `metrics.jsonl`: TensorBoard, W&B and trackio.

    with run_loggers(choose_loggers(["tensorboard,wandb"]), run, runs) as on_metrics:
        train_run(..., on_metrics=on_metrics)

`metrics.jsonl` stays the record: a logger that was switched on late, or was away, is told every line that it has not
heard, those of a finished run too. What each has heard is in `loggers.json` beside it, so that a resumed run goes on in
the same record. The burn-in that a run makes for itself has a folder, and here a record, of its own.

accelerate's trackers were looked at and left: they wrap the calls below one by one, know neither of resuming nor of a
logger that fails, take settings flat only (`add_hparams`), and make accelerate's `PartialState` set up the processes
beside our own. They would remove no line here and add a dependency.
"""

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from semires.pipeline.progress import console
from semires.stages.data.errors import InputError
from semires.stages.train.run_folder import RunFolder

OnMetrics = Callable[[Mapping[str, Any]], None]  # (a line of metrics.jsonl)
Say = Callable[[str], None]

PROJECT = "semires"
LOGGERS = ("tensorboard", "wandb", "trackio")


def choose_loggers(asked: Sequence[str] | None) -> tuple[str, ...]:
    """The names in `--log-to`, given several times or with commas between them; () where this is not the first of
    several processes, which alone logs.

    To be called before any long work and any display, for wandb may ask for a key. InputError for a name that is
    none of `LOGGERS`, for one whose package is missing, and for wandb without a key.
    """
    if os.environ.get("RANK", "0") != "0":
        return ()
    names = tuple(dict.fromkeys(name.strip() for text in asked or () for name in text.split(",")))
    for name in names:
        if name not in LOGGERS:
            raise InputError(f"--log-to: expected one of {', '.join(LOGGERS)}, found {name!r}")
        try:
            module = import_module(name)
        except ImportError as error:
            raise InputError(
                f"--log-to {name}: expected the package {name}, found none; pip install 'semires[{name}]'"
            ) from error
        if name == "wandb" and os.environ.get("WANDB_MODE", "online") == "online":
            try:
                module.login(verify=False)  # a network that is away now may be there at the first evaluation
            except Exception as error:
                raise InputError(f"--log-to wandb: {_reason(error)}; or set WANDB_MODE=offline") from error
    return names


def flatten(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of `metrics.jsonl` by their names there, nested ones joined by a slash: `val/oiou`."""
    values: dict[str, float] = {}
    for key, value in line.items():
        name = str(key)  # precision has numbers for keys until it is read from JSON
        if isinstance(value, Mapping):
            values |= {f"{name}/{inner}": number for inner, number in flatten(value).items()}
        elif isinstance(value, int | float) and key not in ("step", "num_steps"):
            values[name] = value
    return values


@contextmanager
def run_loggers(
    names: Sequence[str], run: Path, root: Path, say: Say = lambda text: console.print(text, soft_wrap=True)
) -> Iterator[OnMetrics]:
    """Loggers of the run in the folder `run`; gives what is to be told of every line appended to `metrics.jsonl`.

    names: some of `LOGGERS`. root: the folder of all runs; a run is named by its path from there. When the block ends
    well, what the loggers still lack is told. Of a logger that fails `say` is told once, and it is left alone; wandb
    looks for a network that is not there for its own `init_timeout`, some 100 seconds, before it fails.
    """
    if not names:
        yield lambda line: None
        return
    loggers = _RunLoggers(names, run, root, say)
    try:
        yield loggers.tell
        loggers.catch_up()
    except BaseException:
        loggers.close(failed=True)
        raise
    loggers.close(failed=False)


class _Logger(Protocol):
    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def finish(self, *, failed: bool) -> None: ...


class _TensorBoard:
    def __init__(self, folder: Path, config: Mapping[str, Any], heard: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an interrupted process wrote after the step that it last noted is told again.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=heard + 1)
        if heard < 0:
            self._writer.add_text("config", "    " + json.dumps(config, indent=1).replace("\n", "\n    "))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, *, failed: bool) -> None:
        self._writer.close()


class _Tracked:
    """wandb, or trackio, which has the same functions."""

    def __init__(self, package: str, **options: Any) -> None:
        self._module: Any = import_module(package)
        self._module.init(project=PROJECT, **options)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._module.log(dict(values), step=step)

    def finish(self, *, failed: bool) -> None:
        self._module.finish(**({"exit_code": int(failed)} if self._module.__name__ == "wandb" else {}))


class _RunLoggers:
    """The loggers of one run, open for one folder at a time: that of its burn-in, then its own."""

    def __init__(self, names: Sequence[str], run: Path, root: Path, say: Say) -> None:
        self._names = list(names)  # those that have not failed
        self._run, self._root, self._say = run, root, say
        self._path = run
        self._open: dict[str, _Logger] = {}

    def tell(self, line: Mapping[str, Any]) -> None:
        """Log a line, after those before it that a logger has not heard."""
        with self._caught(*self._names):
            is_burn_in = line["phase"] == "burn-in" and RunFolder(self._run).read_config().method != "supervised"
            path = self._run / "burn-in" if is_burn_in else self._run
            before = [known for known in RunFolder(path).read_metrics() if known["step"] < line["step"]]
            if not before:
                (path / "loggers.json").unlink(missing_ok=True)  # of a run that was begun anew
            self._log(path, [*before, line])

    def catch_up(self) -> None:
        """Log what the run's folders hold and the loggers have not heard."""
        with self._caught(*self._names):
            for path in (self._run / "burn-in", self._run):
                self._log(path, RunFolder(path).read_metrics())

    def close(self, *, failed: bool) -> None:
        """Finish the records that are open."""
        for name in list(self._open):
            with self._caught(name):
                self._open.pop(name).finish(failed=failed)

    def _log(self, path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
        if path != self._path:
            self.close(failed=False)
            self._path = path
        for name in list(self._names):
            with self._caught(name):
                heard = self._heard(name)
                for line in lines:
                    if line["step"] > heard.get("step", -1):
                        if name not in self._open:
                            self._open[name] = self._opened(name, heard)
                        self._open[name].log(flatten(line), line["step"])
                        heard["step"] = line["step"]
                        self._note(name, heard)

    def _opened(self, name: str, heard: dict[str, Any]) -> _Logger:
        """A logger that goes on where `heard`, which gets an id where it has none, says."""
        is_new = "id" not in heard
        heard.setdefault("id", secrets.token_hex(4))
        config = RunFolder(self._path).read_config().to_dict()
        if name == "tensorboard":
            return _TensorBoard(self._path, config, heard.get("step", -1))
        path = self._path.relative_to(self._root) if self._path.is_relative_to(self._root) else self._path
        options: dict[str, Any] = {"name": path.as_posix(), "config": config}
        if name == "wandb":
            return _Tracked(name, **options, id=heard["id"], resume="allow", dir=str(self._path))
        # trackio resumes by name, and another folder may have had a run of this one.
        return _Tracked(name, **options, resume="never" if is_new else "allow")

    def _heard(self, name: str) -> dict[str, Any]:
        """The `id` of a logger's record and the last `step` in it; {} where it has none."""
        if name == "tensorboard" and not (self._path / "tensorboard").is_dir():
            return {}
        heard: dict[str, Any] = self._read().get(name, {})
        return heard

    def _note(self, name: str, heard: Mapping[str, Any]) -> None:
        path = self._path / "loggers.json"
        temporary = path.with_suffix(".json.tmp")
        temporary.write_text(json.dumps(self._read() | {name: heard}) + "\n", encoding="utf-8")
        temporary.replace(path)

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._path / "loggers.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    @contextmanager
    def _caught(self, *names: str) -> Iterator[None]:
        """The error of these loggers is said once and they are told nothing more; training goes on."""
        try:
            yield
        except Exception as error:
            failed = [name for name in names if name in self._names]
            self._names = [name for name in self._names if name not in failed]
            if failed:
                self._say(
                    f"{' and '.join(failed)} failed ({_reason(error)}), no longer told; metrics.jsonl has every line"
                )


def _reason(error: Exception) -> str:
    """An error in one line."""
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")[:200]
