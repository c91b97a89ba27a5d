"""The entries of the catalogue: trainings and their evaluations, claims, datasets and tiers."""

from __future__ import annotations

import fnmatch
import operator
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationInfo,
    computed_field,
    field_validator,
    model_validator,
)

from date.catalogue.claims import Claim
from date.catalogue.paper import AnnotationEvaluation, Figure, Row, Statement, Table
from date.catalogue.pictures import Choice, Pictures, Sheet, trainings_in
from date.data.synthetic import SceneSpec, area_thresholds
from date.errors import UserError, unknown_name
from date.experiments.entries import ROOT, Entry
from date.families import Branch, Family, models, network

COCO_AREA_THRESHOLDS = (32.0, 96.0)
"""Square roots of the areas in pixels that part COCO's small, medium and large objects."""

CocoMetric = Literal["AP", "AP50", "AP75", "APs", "APm", "APl"]


class Training(Entry):
    """One distinct network of the paper, trained once per seed however many rows use it."""

    name: str
    id: str | None = None
    """The number of the training among the paper's, by the pattern of ``paper.yaml``; own trainings have none."""
    folder: str | None = None
    """The folder of own experiments that it is from; None for the paper's trainings."""
    model: str
    """A file of the experiments' ``models``."""
    options: SerializeAsAny[Entry]
    """What the model's family leaves to its trainings; see `date.families`."""
    backbone: str
    """Which of a tier's backbones; by default that of ``paper.yaml``."""
    data: str
    """The part of the dataset; by default that of ``paper.yaml``."""
    schedule: str
    init: str | None = None
    """The training, or a file of weights, whose backbone, neck and towers this one starts from."""
    source: Literal["official", "inferred", "own"]
    """Whether a released configuration states the settings, or the paper's text and numbers imply them."""
    why: str
    """What the settings rest on."""
    gpu_hours: Annotated[float, Field(gt=0)]
    """Expected V100 hours at the paper's own size; own trainings that do not say take those of like ones."""

    @field_validator("options", mode="before")
    @classmethod
    def _of_the_models_family(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        return models()[info.data["model"]].Options.model_validate(value)

    @property
    def network(self) -> Family:
        """The training's network, as one of its family."""
        return network(self.model, self.options)

    @property
    def label(self) -> str:
        """The training's number in the paper, or the remark that it is not of the paper."""
        return self.id if self.id is not None else f"own, of {self.folder}"

    @property
    def modules(self) -> tuple[str, ...]:
        """The Python modules of the experiments that it uses; their code is part of the identity of its runs."""
        from date.catalogue.modules import modules_of

        return modules_of(self.model, self.schedule)

    @property
    def branches(self) -> dict[str, Branch]:
        """The branches by which its checkpoints can be evaluated, by name."""
        return self.network.branches

    @property
    def init_file(self) -> Path | None:
        """The file of weights that the training starts from, where ``init`` names one and not a training."""
        return ROOT / self.init if self.init and self.init.endswith((".safetensors", ".pth", ".pt")) else None

    @property
    def init_training(self) -> str | None:
        """The name of the training that this one starts from, where ``init`` names one and not a file."""
        return None if self.init_file is not None else self.init

    @property
    def weights(self) -> str:
        """Which pretrained backbone of a tier the training uses."""
        return self.network.pretrained(self.backbone)


class Variant(Entry):
    """One way to evaluate a checkpoint."""

    branch: str
    """The branch that is kept, as the network's family names it: ``o2o`` or ``o2m``, ``head`` of a single head."""
    nms: Annotated[float, Field(gt=0, lt=1)] | None = None
    """IoU of class-wise NMS; null for none."""
    score_thr: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Class probability that a candidate must exceed; null for the network's own (its config's ``test_cfg``)."""
    max_per_img: Annotated[int, Field(gt=0)] | None = None
    """Detections of an image that are kept; null for the network's own."""
    about: str


class Evaluation(Entry):
    """A training's checkpoint, evaluated one way."""

    training: str
    variant: str
    extra: bool = False
    """Whether it is ours, beside those that the paper reports."""
    folder: str | None = None
    """The folder of own experiments that it is from."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def name(self) -> str:
        """``<training>/<variant>``."""
        return f"{self.training}/{self.variant}"


class DatasetSplit(Entry):
    """Annotations and images of a split, relative to the dataset's root."""

    annotations: str
    images: str
    count: Annotated[int, Field(ge=1)] | None = None
    """Number of images, where it is known; verification refuses another."""


class Dataset(Entry):
    """A detection dataset: annotation files and images, or a specification from which scenes are generated."""

    name: str
    classes: list[str]
    """Category names in the order of the network's outputs."""
    protocol: Literal["coco", "crowdhuman"] = "coco"
    """How detections are judged: COCO's twelve numbers, or CrowdHuman's AP, mMR and Recall of its one category."""
    root: str | None = None
    """Folder, absolute or relative to the data root; generated datasets have none."""
    train: DatasetSplit | None = None
    val: DatasetSplit | None = None
    format: Literal["coco", "crowdhuman"] = "coco"
    """Of the annotation files: COCO's json, or CrowdHuman's odgt, which is converted to COCO's on first use."""
    scenes: SceneSpec | None = None
    boxes_as_written: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """Take boxes for x, y, width, height in pixels, although they look like corners or fractions of the image."""
    obtain: str = ""
    """Where a user gets the data; part of the message when it is missing."""
    licence: str = ""
    """Of images and annotations, for the cards of networks that are trained on them."""
    not_for: str = ""
    """What a network that is trained on them must not be used for."""

    @property
    def area_thresholds(self) -> tuple[float, float]:
        """Square roots of the areas in pixels that part small, medium and large objects: COCO's, or the scenes' own."""
        return COCO_AREA_THRESHOLDS if self.scenes is None else area_thresholds(self.scenes.image_size)

    @model_validator(mode="after")
    def _either(self) -> Dataset:
        stored = (self.root, self.train, self.val)
        if (self.scenes is None) != all(stored) or (self.scenes and any(stored)):
            raise ValueError("a dataset has either 'scenes', or 'root', 'train' and 'val'")
        if self.format == "crowdhuman" and (self.scenes or self.classes != ["person"]):
            raise ValueError("'format: crowdhuman' is for odgt files, whose one class is [person]")
        if self.protocol == "crowdhuman" and len(self.classes) != 1:
            raise ValueError("the protocol 'crowdhuman' judges one class; list one, or use 'coco'")
        return self


class Weights(Entry):
    """A file of pretrained backbone weights, below the data root or in an installed package."""

    file: str
    """Relative to the data root, or to where the package is installed."""
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+$")] | None = None
    """The Python package that has the file, with its version: ``name==version``."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    """The digest; of a file below the data root, its first digits are enough."""
    obtain: str = ""
    """Where a user gets a file below the data root."""
    licence: str = ""
    """Of the weights; that of the package where it has them, unless this says otherwise."""

    @model_validator(mode="after")
    def _either(self) -> Weights:
        if (self.package is None) != bool(self.obtain):
            raise ValueError("weights have either 'package', or 'obtain' that says where the file comes from")
        if self.package is not None and len(self.sha256) != 64:
            raise ValueError("weights of a package need their whole SHA-256, which is part of a run's identity")
        return self


class Compute(Entry):
    """Precision and speed of a training. All of it can change the last bits, and is part of a run's identity."""

    precision: Literal["fp32", "tf32", "bf16", "fp64"] = "fp32"
    """``fp32``: the paper's; ``tf32``: float32 with TensorFloat-32 products on GPUs that have them; ``bf16``: backbone,
    neck and towers in bfloat16 (autocast), predictions, losses and matching in float32; ``fp64``: for comparisons."""
    channels_last: bool = False
    """Keep images and features with the channels last in memory, as tensor cores like them."""
    compile: bool = False
    """Compile backbone, neck and head by ``torch.compile``; on a CPU that needs a C++ compiler."""
    fused_optimizer: bool = False
    """Update all weights in one kernel."""
    deterministic: bool = False
    """Use kernels alone that give the same bits every time, also on GPUs."""


class Tier(Entry):
    """The size of the experiments: every setting of the paper that a tier changes."""

    name: str
    summary: str
    watermark: str | None
    """Stands on every table and figure of tiers that are not the paper's."""
    reference: bool = False
    """Whether the work is the paper's own, so that our numbers stand against the paper's."""
    datasets: dict[str, str]
    """Which dataset plays the part of each of the paper's."""
    trainings: list[str]
    """What ``all`` trains: names or patterns."""
    backbones: dict[str, dict[str, Any]]
    """Overrides of the detector's backbone."""
    weights: dict[str, Weights]
    """Pretrained weights of the backbones; empty where training starts from random weights."""
    channels: int
    """Of neck and towers (paper: 256)."""
    levels: int
    """Of the feature pyramid, from stride 8 (paper: 5)."""
    pixel_scale: float
    """Multiplies every pixel number of the paper's resizing and cropping (short side 800)."""
    fit_pixels: bool = False
    """Raise ``pixel_scale`` as far as a dataset's objects need it; see `date.datasets.sizes.pixel_scale`."""
    object_scale: float
    """Multiplies FCOS's regression ranges and RetinaNet's anchors."""
    pad_divisor: int
    """Images are padded to a multiple of it."""
    normalise: Literal["caffe", "unit", "efficientnet_lite"]
    """Input normalisation: BGR mean of the paper's weights, mean and deviation 127.5, or RGB less 127 over 128."""
    batch_size: int
    lr: float
    backbone_lr_mult: float
    warmup_iters: Annotated[int, Field(ge=1)]
    """Steps over which the learning rate rises, linearly."""
    warmup_max_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of a schedule's steps, for which the warm-up may last at most."""
    steps_per_epoch: dict[str, Annotated[int, Field(ge=1)]] = Field(default={})
    """Of each part's dataset (paper: 7330 and 938), where it is not to be counted in the data; another number than that
    is refused. Schedules that the paper gives in iterations are scaled by it."""
    epoch_scale: float
    """Multiplies epochs and learning-rate steps of the schedules."""
    workers: int
    """Processes that load data for a training."""
    log_interval: int
    """Steps between two lines of the metrics."""
    monitored: list[str] = Field(default=["*"])
    """Trainings, by name or pattern, that are validated after every epoch; the others at their end alone."""
    compute: Compute = Compute()
    tuned: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(default={})
    """Keys that were chosen by trial, for all trainings, and on which networks: of the paper's ``tuned_on``."""
    _given: str = PrivateAttr("")

    def monitors(self, training: str) -> bool:
        """Return whether a training is validated after every epoch, and not at its end alone."""
        return any(fnmatch.fnmatchcase(training, pattern) for pattern in self.monitored)

    @property
    def option(self) -> str:
        """The value of ``--tier`` for this tier, quoted for a shell: the path that it was read from, or its name."""
        return shlex.quote(self._given or self.name)

    @property
    def file(self) -> Path | None:
        """The file that it was read from, where it was given by a path and not by its name."""
        return None if self._given in (None, self.name) else Path(self._given).resolve()

    @model_validator(mode="after")
    def _tuned_keys_are_keys(self) -> Tier:
        if unknown := self.tuned.keys() - type(self).model_fields.keys():
            raise ValueError(f"'tuned' names {', '.join(sorted(unknown))}, which no tier has")
        return self

    @model_validator(mode="after")
    def _reference_or_marked(self) -> Tier:
        if self.reference == (self.watermark is not None):
            raise ValueError("a tier has a 'watermark', or it is the paper's own size and says 'reference: true'")
        return self


class Catalogue(Entry):
    """All entries of the folders of experiments, checked against each other."""

    trainings: dict[str, Training]
    variants: dict[str, Variant]
    evaluations: dict[str, Evaluation]
    annotations: dict[str, AnnotationEvaluation]
    """Evaluations of annotations, which need no checkpoint."""
    tables: dict[str, Table]
    figures: dict[str, Figure]
    claims: dict[str, Claim]
    statements: dict[str, Statement]
    pictures: Pictures

    def of_the_paper(self) -> Catalogue:
        """Return the catalogue without own experiments."""
        kinds = ("trainings", "evaluations", "tables", "figures", "claims")
        own = {kind: {n: e for n, e in getattr(self, kind).items() if e.folder is None} for kind in kinds}
        sheets = {name: sheet for name, sheet in self.pictures.sheets.items() if sheet.folder is None}
        return self.model_copy(update=own | {"pictures": self.pictures.model_copy(update={"sheets": sheets})})

    def printed(self, evaluation: str, metric: str) -> float | None:
        """Return what the paper's tables print of an evaluation, where they do."""
        rows = [row for table in self.tables.values() if table.folder is None for row in table.rows]
        return next((row.paper[metric] for row in rows if row.evaluation == evaluation and metric in row.paper), None)

    def training(self, name: str) -> Training:
        """Return a training by name.

        Raises:
            UserError: unknown name; the message has the nearest valid one.
        """
        if name not in self.trainings:
            raise unknown_name("training", name, self.trainings)
        return self.trainings[name]

    def evaluation(self, name: str) -> Evaluation:
        """Return an evaluation by name, or raise a `UserError`."""
        if name not in self.evaluations:
            raise unknown_name("evaluation", name, self.evaluations)
        return self.evaluations[name]

    def evaluations_of(self, training: str) -> list[Evaluation]:
        """Return the evaluations of a training, in the catalogue's order; extra ones come last."""
        return [e for e in self.evaluations.values() if e.training == training]

    @property
    def drawn(self) -> dict[str, Figure | Sheet]:
        """The paper's figures and the sheets of pictures, by name."""
        return {**self.figures, **self.pictures.sheets}

    @property
    def pictured(self) -> list[str]:
        """The trainings whose evaluations record pictures: those that a figure or a sheet views."""
        viewed = trainings_in([view for figure in self.drawn.values() for view in figure.views])
        return [name for name in self.trainings if name in viewed]

    def picture_choice(self, training: str) -> Choice | None:
        """Return the rule by which the images of a training's pictures are chosen; None where it is not pictured."""
        return self.pictures.choices[self.training(training).data] if training in self.pictured else None

    def basis(self, row: Row) -> Training | AnnotationEvaluation:
        """Return what a row rests on; its ``source`` and ``why`` say whether a released configuration states it."""
        if row.annotations is not None:
            return self.annotations[row.annotations]
        if row.evaluation is not None:
            return self.training(self.evaluation(row.evaluation).training)
        assert row.network is not None
        return self.training(row.network)

    def chosen(self, tier: Tier, asked: list[str] | None = None) -> list[Training]:
        """Return the trainings of ``all`` at a tier: those asked for by name or pattern, else the tier's own.

        Those that patterns alone choose, and that the tier has no data for, are not among them; see `left_out`.

        Raises:
            UserError: a pattern that matches nothing, or only trainings without data.
        """
        patterns = asked or tier.trainings
        found = self.select(patterns)
        kept = [training for training in found if training.name in patterns or training.data in tier.datasets]
        if found and not kept:
            parts = ", ".join(sorted({training.data for training in found}))
            raise UserError(
                f"tier {tier.name!r} has data for none of the chosen trainings, which need {parts}; add a dataset to "
                f"its 'datasets'."
            )
        return kept

    def left_out(self, tier: Tier, asked: list[str] | None = None) -> str | None:
        """Return the sentence on the trainings that `chosen` leaves out; None where there are none."""
        names = [t.name for t in self.select(asked or tier.trainings) if t not in self.chosen(tier, asked)]
        if not names:
            return None
        parts = ", ".join(sorted({repr(self.trainings[name].data) for name in names}))
        return f"left out, since the tier {tier.name!r} has no data in the part of {parts}: {', '.join(names)}"

    def select(self, patterns: list[str]) -> list[Training]:
        """Return the trainings that match any of the names or patterns, in the catalogue's order.

        Raises:
            UserError: a pattern that matches nothing.
        """
        for pattern in patterns:
            if not fnmatch.filter(self.trainings, pattern):
                raise unknown_name("training or pattern", pattern, self.trainings)
        return [t for t in self.trainings.values() if any(fnmatch.fnmatchcase(t.name, p) for p in patterns)]
