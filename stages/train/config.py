"""The settings of a training run; the defaults are the paper's (1% labeled, CPI-U 0.7, PWA)."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from semires.stages.data.errors import InputError
from semires.stages.data.refer import Text
from semires.stages.data.splits import is_same_split, spec_of
from semires.stages.train.engine.precision import Precision, resolve_precision
from semires.stages.train.labels.group_labels import GroupConfig
from semires.stages.train.losses import CLASS_WEIGHTS, LossMean
from semires.stages.train.matching import MatchConfig
from semires.stages.train.models.build import BERT_SOURCE, SWIN_SOURCES, build_model, check_model, image_size_of
from semires.stages.train.models.interface import ResModel
from semires.stages.train.views import ViewConfig

Method = Literal["supervised", "baseline", "semires", "semires-cc"]

UNSAID: dict[str, Any] = {"text": "sent", "eval_text": "sent", "blur_labeled": True, "text_dropout_burn_in": True}
"""What runs did from before these settings existed, where that is no longer the default."""

UNSAID_OF_GROUP: dict[str, Any] = {"label_floor": 0.0, "label_mean": "kinds"}
"""The same of `semires-cc`'s own settings."""

FREE = ("num_workers", "gradient_checkpointing", "save_minutes")
"""Settings that change nothing that is computed: with others a run may go on, on another machine for instance."""

WHICH_IMAGES = ("labeled", "labeled_seed", "labeled_list")
"""Settings that say which images are labeled. Where a list does, the images themselves are compared: the same list may
lie at two paths, and be edited at one."""

PLACES = ("swin", "bert", "clipseg")
"""Settings that may be a folder, which a relative and an absolute path name alike."""

FORMER_DEFAULTS: dict[str, Any] = {"batch_burn_in": 6, "batch_labeled": 3, "batch_unlabeled": 3}
"""Defaults of before there were several GPUs: a run that was begun with them goes on with them."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a run computes; written whole into the run's `config.json`.

    InputError for values that cannot be trained with.
    """

    split: str = "refcoco"
    """Data set: a name of `SPLITS`, or the path of a JSON-lines file as the user gave it."""
    labeled: float = 0.01
    """Share of the train images that are labeled, of those with masks, (0, 1]."""
    labeled_seed: int = 0
    """Seed of the draw of labeled images (the published splits: 0)."""
    labeled_list: str | None = None
    """File that lists the labeled image ids, in place of a draw."""
    method: Method = "semires"
    """supervised: labeled data only; baseline: mutual learning on raw pseudo-labels; semires: on refined ones;
    semires-cc, which is not the paper's: on refined ones of consensus, competition and presence (labels/)."""
    match: MatchConfig = field(default_factory=MatchConfig)
    """How pseudo-labels are refined; read by `semires` and `semires-cc`."""
    refine: bool = True
    """Whether `semires` and `semires-cc` refine labels by candidates at all (Table 5); without it they read none."""
    pwa: bool = True
    """Weight the pixels of unmatched labels by the teacher's certainty (eq. 9-10); read by both as well."""
    confidence_filter: float = 0.0
    """Share of each pseudo-label's pixels, the least confident, without a part in the loss (Table 4: 0.05); read by
    `baseline` only."""
    group: GroupConfig = field(default_factory=GroupConfig)
    """How the refs of an image are labeled together; read by `semires-cc` only."""
    model: str = "base"
    """LAVT's size (base is the paper's, nano RefShapes'), clipseg, clipseg-nano (RefShapes'), or a factory
    PACKAGE.MODULE:FACTORY."""
    swin: str | None = None
    """Pre-trained Swin of LAVT: a local folder or a hub name; None for the published one of the size."""
    bert: str | None = None
    """Pre-trained BERT and tokenizer of LAVT: a local folder or a hub name; None for BERT-base-uncased."""
    clipseg: str | None = None
    """Pre-trained CLIPSeg: a local folder or a hub name; None for the published one."""
    window: int | None = None
    """Side of Swin's attention windows in positions; None for the size's own."""
    image_size: int | None = None
    """Side of the images in pixels; None for the model's own (LAVT: 480)."""
    text: Text = "raw"
    """Which text of an expression training reads: REFER's `raw`, as LAVT, or `sent`, as the public SemiRES code."""
    eval_text: Text = "raw"
    """Which text evaluation reads, that on val in training included: LAVT and the public SemiRES code read `raw`."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """The weak and the strong view."""
    blur_labeled: bool = False
    """Whether labeled images too come in the weak view, in both phases; in LAVT and the public code they are plain."""
    text_dropout_burn_in: bool = False
    """Whether the text modules drop out in burn-in; LAVT and the public code leave BERT in evaluation mode there."""
    burn_in_epochs: int = 40
    """Passes over the labeled refs before mutual learning."""
    mutual_epochs: int = 40
    """Passes over the unlabeled refs in mutual learning."""
    num_evaluations: int = 40
    """Evaluations on val, and checkpoints, in each of the two phases, evenly spaced."""
    patience: int | None = None
    """Mutual learning stops after so many evaluations in a row without a gain in val oIoU; None: never."""
    batch_burn_in: int = 8
    """Labeled samples a step in burn-in, over all GPUs (public scripts: 2 on each of 4)."""
    batch_labeled: int = 12
    """Labeled samples a step in mutual learning, over all GPUs (paper: 3 on each of 4)."""
    batch_unlabeled: int = 12
    """Unlabeled samples a step in mutual learning, over all GPUs (paper: 3 on each of 4)."""
    micro_batch: int | None = None
    """Most samples that a process puts through the student at once; the gradients of a step's add up, batch norm
    sees those at once only. None: all of its share of the batch."""
    learning_rate: float = 5e-5
    """AdamW's rate at the start of each phase; decays to 0 by (1 - it / total)^0.9."""
    mutual_schedule: float = 1.0
    """`total` of mutual learning in its own steps, at least 1; the public code's 2 ends at 0.537 of the rate."""
    trunk_rate: float = 1.0
    """Share of the learning rate of the visual trunk (Swin, CLIPSeg-nano's vision encoder), 0 to 1; below 1 where it
    alone is pre-trained."""
    weight_decay: float = 1e-2
    """AdamW's decay of the parameters that have one."""
    alpha: float = 0.996
    """The teacher's share of itself at each step (eq. 5); the public code has 0.9996."""
    lambda_sup: float = 1.0
    """Weight of the supervised loss (eq. 4); the public IOM script has 10."""
    lambda_unsup: float = 1.0
    """Weight of the unsupervised loss (eq. 4)."""
    class_weights: tuple[float, float] = CLASS_WEIGHTS
    """Cross-entropy's weights of background and referent."""
    mutual_loss_mean: LossMean = "weighted"
    """Mutual learning's mean of class-weighted pixels: torch's weighted one, or the public code's plain one."""
    gradient_checkpointing: bool = False
    """Keep less of LAVT's forward pass, compute it again in the backward: less memory, more time, the same result."""
    precision: Precision = "auto"
    """fp32, or bf16: autocast of the forward passes; auto: bf16 where the device has it, which a run then records."""
    compile: bool = False
    """Compile student and teacher with torch.compile: minutes at the start, faster steps on a GPU."""
    num_workers: int | None = None
    """Data-loader processes of each rank; None: by the machine's cores, none where all samples fit into memory."""
    save_minutes: float = 10.0
    """Minutes between two states that an interrupted run can go on from; at each evaluation there is one too."""
    seed: int = 0
    """Seed of weights, order, expressions and views."""

    def __post_init__(self) -> None:
        spec_of(self.split)
        if not 0 < self.labeled <= 1:
            raise InputError(
                f"--labeled: expected a share above 0 and at most 1 (0.01 is 1%), found {self.labeled}; change it"
            )
        choices = {
            "method": Method,
            "text": Text,
            "eval_text": Text,
            "mutual_loss_mean": LossMean,
            "precision": Precision,
        }
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                raise InputError(f"{name}: expected one of {', '.join(get_args(kind))}, found {getattr(self, name)!r}")
        check_model(
            self.model,
            window=self.window,
            image_size=self.image_size,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        for name in (
            "burn_in_epochs",
            "mutual_epochs",
            "num_evaluations",
            "batch_burn_in",
            "batch_labeled",
            "batch_unlabeled",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected 1 or more, found {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay", "lambda_sup", "lambda_unsup", "save_minutes", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name}: expected 0 or more, found {getattr(self, name)}")
        if self.num_workers is not None and self.num_workers < 0:
            raise InputError(f"num_workers: expected 0 or more, or none, found {self.num_workers}")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise InputError(f"--micro-batch: expected 1 sample or more, found {self.micro_batch}")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience: expected 1 evaluation or more, or none, found {self.patience}")
        if not 0 <= self.confidence_filter < 1:
            raise InputError(f"--confidence-filter: expected a share from 0 to below 1, found {self.confidence_filter}")
        if not 1 <= self.mutual_schedule < math.inf:
            raise InputError(f"mutual_schedule: expected 1 or more, found {self.mutual_schedule}")
        for name in ("trunk_rate", "alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}: expected a share from 0 to 1, found {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        values = dataclasses.asdict(self)
        values["class_weights"] = list(self.class_weights)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Read what `to_dict` wrote; InputError for unknown keys and for values that do not fit.

        A setting that is missing is younger than the run, which did what `UNSAID` has.
        """
        try:
            values = UNSAID | dict(values)
            # Runs from before LAVT had several sizes name the published weights themselves.
            for name, published in (("swin", SWIN_SOURCES["base"]), ("bert", BERT_SOURCE)):
                if values.get(name) == published and values.get("model") in ("base", "nano"):
                    values[name] = None
            if values.get("method") == "semires-cc" and "group" in values:
                values["group"] = UNSAID_OF_GROUP | dict(values["group"])
            for name, kind in (("match", MatchConfig), ("views", ViewConfig), ("group", GroupConfig)):
                if name in values:
                    values[name] = kind(**values[name])
            if "class_weights" in values:
                background, referent = values["class_weights"]
                values["class_weights"] = (background, referent)
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise InputError(f"expected the settings of a training run, found others: {error}") from error

    def continuing(self, found: "TrainConfig", *, given: Collection[str] = ()) -> "TrainConfig":
        """This config as a run of `found` goes on with it: settings whose default has changed since keep their former
        one, unless they are among those `given`; auto is what the run resolved it to."""
        kept: dict[str, Any] = {
            name: value
            for name, value in FORMER_DEFAULTS.items()
            if name not in given and getattr(found, name) == value and getattr(self, name) == getattr(TrainConfig, name)
        }
        if self.precision == "auto" and found.precision != "auto":
            kept["precision"] = found.precision
        former = {
            name: value
            for name, value in UNSAID_OF_GROUP.items()
            if name not in given and getattr(found.group, name) == value
        }
        if self.is_grouped and found.is_grouped and former:
            kept["group"] = dataclasses.replace(self.group, **former)
        return dataclasses.replace(self, **kept)

    def differences(self, other: "TrainConfig") -> dict[str, tuple[Any, Any]]:
        """In what this config and another compute otherwise: name -> (here, there)."""
        here, there = self.to_dict(), other.to_dict()
        if is_same_split(self.split, other.split):
            there["split"] = self.split
        return {name: (here[name], there[name]) for name in here if name not in FREE and here[name] != there[name]}

    def resolved(self, device: torch.device) -> "TrainConfig":
        """This config with the precision that auto means on `device`."""
        return dataclasses.replace(self, precision=resolve_precision(self.precision, device))

    def build_model(self, *, pretrained: bool) -> ResModel:
        """The run's model on CPU in training mode; see `models.build.build_model`."""
        return build_model(
            self.model,
            pretrained=pretrained,
            swin=self.swin,
            bert=self.bert,
            clipseg=self.clipseg,
            window=self.window,
            image_size=self.image_size,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    @property
    def is_refined(self) -> bool:
        """Whether pseudo-labels are refined, for which the run reads candidates."""
        return self.method in ("semires", "semires-cc") and self.refine

    @property
    def is_weighted(self) -> bool:
        """Whether labels that no candidate refined are weighted pixel by pixel (PWA)."""
        return self.method in ("semires", "semires-cc") and self.pwa

    @property
    def is_grouped(self) -> bool:
        """Whether unlabeled batches are made of whole images, whose refs are labeled together."""
        return self.method == "semires-cc"

    @property
    def model_image_size(self) -> int:
        """Side in pixels of the images of the run's model."""
        return image_size_of(self.model, clipseg=self.clipseg, image_size=self.image_size)

    @property
    def labeled_name(self) -> str:
        """The labeled images in the name of a run: their share, or the list that names them."""
        return f"{self.labeled:g}" if self.labeled_list is None else f"list-{Path(self.labeled_list).stem}"

    def burn_in(self) -> "TrainConfig":
        """The supervised run that a run of this config starts from: methods that differ in nothing else share it."""
        plain = TrainConfig()
        return dataclasses.replace(
            self,
            method="supervised",
            match=plain.match,
            refine=plain.refine,
            pwa=plain.pwa,
            confidence_filter=plain.confidence_filter,
            group=plain.group,
            mutual_epochs=plain.mutual_epochs,
            patience=plain.patience,
            batch_labeled=plain.batch_labeled,
            batch_unlabeled=plain.batch_unlabeled,
            mutual_schedule=plain.mutual_schedule,
            mutual_loss_mean=plain.mutual_loss_mean,
            alpha=plain.alpha,
            lambda_sup=plain.lambda_sup,
            lambda_unsup=plain.lambda_unsup,
        )
