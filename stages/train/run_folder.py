"""The folder of a training run: `runs/<name>/`.

config.json         the resolved settings
labeled_images.json the labeled image ids
environment.json    what it was begun with, and gone on with: machine, versions, commit, what the data set was
sources.json        the candidate store and the burn-in that the run reads, not of a supervised run; own data's file
metrics.jsonl       a line an evaluation
state-<step>.pt     what is needed to go on after an interruption, with its sha256; gone once the run is finished
model/              the network and its vocabulary, which came from files that may move; not of nanos, nor a factory's
best.safetensors    the weights with the best val oIoU: the student of burn-in, else the teacher
result.json         written last: the run is finished
"""

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.data.files.tensor_files import load_tensors, save_tensors
from semires.stages.data.splits import is_same_split
from semires.stages.train.config import FREE, PLACES, UNSAID, WHICH_IMAGES, TrainConfig
from semires.stages.train.engine.states import StateFiles
from semires.stages.train.models.checkpoints.folder import open_network, save_network
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.lavt import Lavt

_REMEDY = "choose another --name, or begin anew with --restart (of a study's run: move the folder away)"


class RunFolder:
    """Files of one run. All but `metrics.jsonl`, which grows by lines, are replaced whole: a kill leaves old or new."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_started(self) -> bool:
        """Whether a run was begun here."""
        return self._has("config.json")

    @property
    def is_finished(self) -> bool:
        """Whether the run here came to its end."""
        return self._has("result.json")

    def start(
        self, config: TrainConfig, labeled_images: list[int], sources: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Begin a run, or go on with the one that is here; InputError if that one has other settings.

        sources: what the run reads beside the data set, by kind ("store", "burn_in"; of own data "data"): its location,
        which may change (a run goes on on another machine), and what it is made of (SAM, settings, sha256), which may
        not.
        """
        if self.is_started:
            self.check(config, labeled_images, sources)
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._write_json("labeled_images.json", labeled_images)
        if sources is not None:
            self._write_json("sources.json", sources)
        self._write_json("config.json", config.to_dict())

    def check(
        self, config: TrainConfig, labeled_images: list[int], sources: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """InputError if the run that is here, if any, has other settings, other labeled images or other sources."""
        if not self.is_started:
            return
        found, asked = self.read_config().to_dict(), config.to_dict()
        if is_same_split(found["split"], asked["split"]):
            asked["split"] = found["split"]
        are_listed = found["labeled_list"] is not None or asked["labeled_list"] is not None
        for key in asked:
            if are_listed and key in WHICH_IMAGES:
                continue
            if key == "precision" and asked[key] == "auto":
                continue  # it goes on in its own
            if key in PLACES and _is_same_place(found[key], asked[key]):
                continue
            if key not in FREE and found[key] != asked[key]:
                # Of runs older than these options the default is not what they were begun with.
                given = f"give {_options_of_unsaid(found)}, "
                raise InputError(
                    f"{self.path} holds a run with {key} {found[key]!r}, asked for {asked[key]!r}: "
                    f"{given if key in UNSAID else ''}{_REMEDY}"
                )
        # A list file may have been edited, a data set completed: the settings alone do not tell.
        if self.read_labeled_images() != labeled_images:
            raise InputError(f"{self.path} holds a run with other labeled images than those asked for: {_REMEDY}")

        for kind, source in (sources or {}).items():
            self._check_source(kind, source)

    def _check_source(self, kind: str, asked: Mapping[str, Any]) -> None:
        # A run begun before sources were recorded has none to compare with.
        found = self.read_sources().get(kind, asked)
        for key in sorted(found.keys() | asked.keys()):
            if key != "location" and found.get(key) != asked.get(key):
                raise InputError(
                    f"{self.path} holds a run with the {kind.replace('_', '-')} {found.get('location')} "
                    f"({key} {found.get(key)!r}), asked for {asked.get('location')} ({key} {asked.get(key)!r}): give "
                    f"that one, {_REMEDY}"
                )

    def read_sources(self) -> dict[str, dict[str, Any]]:
        """What `start` was told of the run's sources, {} where it was told nothing."""
        sources: dict[str, dict[str, Any]] = self._read_json("sources.json") if self._has("sources.json") else {}
        return sources

    def add_environment(self, environment: Mapping[str, Any]) -> None:
        """Record what the run computes with (`environment_of`, plain values) from now on, unless it did before; when it
        "started" makes no difference."""
        known = self.read_environments()
        if all({**found, "started": None} != {**environment, "started": None} for found in known):
            self._write_json("environment.json", [*known, dict(environment)])

    def read_environments(self) -> list[dict[str, Any]]:
        """What the run was begun with, and every other environment that it went on with, in order; [] of runs older
        than this record."""
        environments: list[dict[str, Any]] = (
            self._read_json("environment.json") if self._has("environment.json") else []
        )
        return environments

    def best_sha256(self) -> str:
        """Hexadecimal sha256 of the best weights; InputError where there are none."""
        path = self.path / "best.safetensors"
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _no_weights(path, error) from error

    def read_config(self) -> TrainConfig:
        """The run's settings; InputError where there is no run."""
        return TrainConfig.from_dict(self._read_json("config.json"))

    def read_labeled_images(self) -> list[int]:
        """The ids of the labeled images; InputError where there is no run."""
        image_ids: list[int] = self._read_json("labeled_images.json")
        return image_ids

    def read_result(self) -> dict[str, Any]:
        """What `finish` wrote; InputError where the run is not finished."""
        result: dict[str, Any] = self._read_json("result.json")
        return result

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl` in the order written; one that a kill cut off is left out. InputError for a file
        with other content."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        lines: list[dict[str, Any]] = []
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                lines.append(dict(json.loads(line)))
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"{path}: expected the metrics of a run, a JSON object a line, found a damaged line {number}; "
                    "remove it"
                ) from error
        return lines

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def save_best(self, state: Mapping[str, Tensor]) -> None:
        """Keep the weights of the best model so far."""
        save_tensors(state, self.path / "best.safetensors")

    def load_model(self) -> tuple[TrainConfig, ResModel]:
        """The run's best model on CPU in eval mode; InputError where the run or its weights are missing or damaged."""
        config = self.read_config()
        model = self.kept_network(config) or config.build_model(pretrained=False)
        self.load_best(model)
        return config, model.eval()

    def keep_network(self, model: ResModel) -> None:
        """Keep what makes the run's network again, once: the folder of its BERT may be gone when it is asked for."""
        if model.factory is None and not (self.path / "model").is_dir():
            save_network(model, self.path / "model")

    def kept_network(self, config: TrainConfig) -> ResModel | None:
        """The run's network with random weights, on the CPU in training mode; None where none was kept."""
        if not (self.path / "model").is_dir():
            return None
        model = open_network(self.path / "model")
        if isinstance(model, Lavt):
            model.gradient_checkpointing = config.gradient_checkpointing
        return model.train()

    def image_size(self, config: TrainConfig) -> int:
        """Side in pixels of the run's images, without the files of its backbones where its network was kept."""
        kept = self.kept_network(config) if config.model == "clipseg" else None
        return config.model_image_size if kept is None else kept.image_size

    def load_best(self, model: ResModel) -> None:
        """Read the best weights into `model`, which must be of the run's size."""
        path = self.path / "best.safetensors"
        try:
            model.load_state_dict(load_tensors(path))
        except OSError as error:
            raise _no_weights(path, error) from error
        except (SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"expected weights of this run's model in {path}, found others ({reason})") from error

    def states(self) -> StateFiles:
        """The states that an interrupted run goes on from; those of other settings or labeled images are not its own.

        InputError where there is no run.
        """
        # As they were written: a setting that came later has no say.
        settings = {name: value for name, value in self._read_json("config.json").items() if name not in FREE}
        content = json.dumps([settings, self.read_labeled_images()], sort_keys=True)
        return StateFiles(self.path, hashlib.sha256(content.encode()).hexdigest())

    def rewind(self, step: int) -> None:
        """Drop the lines of `metrics.jsonl` after `step`: those of work that an interruption lost."""
        lines = [line for line in self.read_metrics() if line["step"] <= step]
        self._write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished and drop what only an interrupted one needs."""
        self._write_json("result.json", dict(result))
        self.states().remove()

    def restart(self) -> Path | None:
        """Move what is here aside, so that a run can begin anew; where to, None where there was nothing."""
        if not self.is_started:
            return None
        number = next(n for n in itertools.count(1) if not self.path.with_name(f"{self.path.name}.old{n}").exists())
        aside = self.path.with_name(f"{self.path.name}.old{number}")
        self.path.rename(aside)
        return aside

    def _has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def _write_json(self, name: str, content: Any) -> None:
        self._write(name, json.dumps(content, indent=1) + "\n")

    def _write(self, name: str, text: str) -> None:
        temporary = self.path / f"{name}.{os.getpid()}.tmp"
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.path / name)
        except OSError:  # a full disk, for instance, has no room for what is half written
            temporary.unlink(missing_ok=True)
            raise

    def _read_json(self, name: str) -> Any:
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"expected a run of `semires train`, found no {path}") from error
        except ValueError as error:
            raise InputError(f"expected JSON in {path}, found a damaged file ({error})") from error


def _is_same_place(found: str | None, asked: str | None) -> bool:
    """Whether two texts name the same folder; a hub's name is as good as a path here."""
    return found is not None and asked is not None and os.path.abspath(found) == os.path.abspath(asked)


def _no_weights(path: Path, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"expected a run's weights, found no {path}: train the run first")
    return InputError(
        f"expected a run's weights, found {path}, which cannot be read ({error.strerror}): change its owner or mode, "
        "or copy it again"
    )


def _options_of_unsaid(found: Mapping[str, Any]) -> str:
    """How to ask for what a run did whose settings may be older than these options."""
    blur, dropout = ("" if found[name] else "no-" for name in ("blur_labeled", "text_dropout_burn_in"))
    texts = f"--text {found['text']} --eval-text {found['eval_text']}"
    return f"{texts} --{blur}blur-labeled --{dropout}text-dropout"
