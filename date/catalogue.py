"""The catalogue: trainings, evaluations, rows and claims of the paper as validated data, read from ``experiments/``.

Everything a researcher edits is YAML; every name is checked when the catalogue is loaded, so that a typing error costs
a sentence and not GPU hours. Nothing here imports PyTorch.
"""

from __future__ import annotations

import fnmatch
import functools
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field, model_validator

from date.data.synthetic import SceneSpec, area_thresholds
from date.errors import UserError, unknown_name

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = ROOT / "experiments"

COCO_AREA_THRESHOLDS = (32.0, 96.0)
"""Square roots of the areas in pixels that part COCO's small, medium and large objects."""

CocoMetric = Literal["AP", "AP50", "AP75", "APs", "APm", "APl"]
ComplexityMetric = Literal["params_m", "gmacs"]


class Entry(BaseModel):
    """Base of all catalogue data: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(Entry):
    """One distinct network of the paper, trained once per seed however many rows use it."""

    name: str
    id: Annotated[str, Field(pattern=r"^T\d+$")]
    """The number of the training among the paper's forty."""
    model: Literal["retinanet", "fcos", "dual", "defcn"]
    """MMDetection's own RetinaNet or FCOS head, the dual-assignment head with its one-to-one branch, or DeFCN."""
    backbone: Literal["r50", "r101"] = "r50"
    data: Literal["coco", "crowdhuman"] = "coco"
    schedule: str
    quality: Literal["hungarian", "poto"] | None = None
    """One-to-one matching of the dual head: OneNet's cost or POTO."""
    o2m: Literal["fcos", "retinanet"] | None = None
    """Style of the one-to-many branch of the dual head."""
    max_filter: bool = False
    """3D max filtering in the one-to-one branch of the dual head."""
    share_towers: bool = True
    """False gives each branch of the dual head towers of its own."""
    init: str | None = None
    """The training, or a file of weights, whose backbone, neck and towers this one starts from."""
    lambda_o2o: Annotated[float, Field(ge=0)] = 1.0
    lambda_o2m: Annotated[float, Field(ge=0)] = 1.0
    source: Literal["official", "inferred"]
    """Whether a released configuration states the settings, or the paper's text and numbers imply them."""
    why: str
    """What the settings rest on."""
    gpu_hours: Annotated[float, Field(gt=0)]
    """Expected V100 hours at the paper tier."""

    @model_validator(mode="after")
    def _branches(self) -> Training:
        if self.model == "dual" and self.quality is None:
            raise ValueError("the dual-assignment head needs 'quality': hungarian or poto")
        if self.model != "dual" and (self.quality or self.o2m or self.max_filter or not self.share_towers):
            keys = "'quality', 'o2m', 'max_filter' and 'share_towers'"
            raise ValueError(f"{keys} belong to the dual-assignment head, not to {self.model}")
        if not self.share_towers and self.o2m is None:
            raise ValueError("'share_towers: false' needs a second branch; name it by 'o2m'")
        return self

    @property
    def branches(self) -> set[str]:
        """The branches that its checkpoints can be judged by."""
        if self.model in ("retinanet", "fcos"):
            return {"head"}
        return {"o2o", "o2m"} if self.o2m else {"o2o"}

    @property
    def init_file(self) -> Path | None:
        """The file of weights that the training starts from, where ``init`` names one and not a training."""
        return ROOT / self.init if self.init and self.init.endswith((".safetensors", ".pth", ".pt")) else None

    @property
    def weights(self) -> str:
        """Which pretrained backbone of a tier the training uses."""
        return f"{self.backbone}_msra" if self.model == "defcn" else self.backbone


class Variant(Entry):
    """One way of judging a checkpoint."""

    branch: Literal["o2o", "o2m", "head"]
    """The branch that is kept; ``head`` for the single head of RetinaNet and FCOS."""
    nms: Annotated[float, Field(gt=0, lt=1)] | None = None
    """IoU of class-wise NMS; null for none."""
    about: str


class Evaluation(Entry):
    """A training's checkpoint judged one way."""

    training: str
    variant: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def name(self) -> str:
        """``<training>/<variant>``."""
        return f"{self.training}/{self.variant}"


class Row(Entry):
    """A line of one of the paper's tables."""

    id: str
    label: str
    evaluation: str
    setting: dict[str, str | int | bool] = {}
    """Columns that describe the row, e.g. epoch and NMS."""
    paper: dict[str, float]
    """The paper's numbers by column."""


class Table(Entry):
    """One of the paper's tables."""

    number: int
    title: str
    caption: str
    settings: list[str]
    """Descriptive columns, in the paper's order."""
    metrics: list[str]
    """Columns of numbers, in the paper's order."""
    groups: list[list[Row]]
    """Rows between the paper's rules; the best number of each column is bold within its group."""

    @property
    def name(self) -> str:
        """E.g. ``table01``."""
        return f"table{self.number:02d}"

    @property
    def rows(self) -> list[Row]:
        """All rows in order."""
        return [row for group in self.groups for row in group]


class Claim(Entry):
    """A comparative sentence of the paper as a predicate over two evaluations."""

    name: str
    sentence: str
    place: str
    higher: str
    """Evaluation that is claimed to score higher."""
    lower: str
    metric: CocoMetric = "AP"
    paper_difference: float


class DatasetSplit(Entry):
    """Annotations and images of a split, relative to the dataset's root."""

    annotations: str
    images: str


class Dataset(Entry):
    """A detection dataset: a COCO-format folder, or a specification from which scenes are generated."""

    name: str
    classes: list[str]
    """Category names in the order of the network's outputs."""
    root: str | None = None
    """Folder, absolute or relative to the data root; generated datasets have none."""
    train: DatasetSplit | None = None
    val: DatasetSplit | None = None
    scenes: SceneSpec | None = None
    obtain: str = ""
    """Where a user gets the data; part of the message when it is missing."""

    @property
    def area_thresholds(self) -> tuple[float, float]:
        """Square roots of the areas in pixels that part small, medium and large objects: COCO's, or the scenes' own."""
        return COCO_AREA_THRESHOLDS if self.scenes is None else area_thresholds(self.scenes.image_size)

    @model_validator(mode="after")
    def _either(self) -> Dataset:
        stored = (self.root, self.train, self.val)
        if (self.scenes is None) != all(stored) or (self.scenes and any(stored)):
            raise ValueError("a dataset has either 'scenes', or 'root', 'train' and 'val'")
        return self


class Weights(Entry):
    """A file of pretrained backbone weights."""

    file: str
    """Relative to the data root."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    """The digest or its first digits."""
    obtain: str
    """Where a user gets the file."""


class Compute(Entry):
    """Precision and speed of a training. All of it can change the last bits, and is part of a run's identity."""

    precision: Literal["fp32", "tf32", "bf16", "fp64"] = "fp32"
    """``fp32``: the paper's; ``tf32``: float32 with TensorFloat-32 products on GPUs that have them; ``bf16``: backbone,
    neck and head in bfloat16 (autocast), losses and matching in float32; ``fp64``: for comparisons."""
    channels_last: bool = False
    """Keep images and features with the channels last in memory, as tensor cores like them."""
    compile: bool = False
    """Compile backbone, neck and head by ``torch.compile``; on a CPU that needs a C++ compiler."""
    fused_optimizer: bool = False
    """Update all weights in one kernel."""
    deterministic: bool = False
    """Use kernels alone that give the same bits every time, also on GPUs."""


class Tier(Entry):
    """How large the work is. Every number of the paper's settings that a tier changes is named here."""

    name: str
    summary: str
    watermark: str | None
    """Stands on every table and figure of tiers that are not the paper's."""
    datasets: dict[Literal["coco", "crowdhuman"], str]
    """Which dataset plays the part of each of the paper's."""
    trainings: list[str]
    """What ``all`` trains: names or patterns."""
    backbones: dict[Literal["r50", "r101"], dict[str, Any]]
    """Overrides of the detector's backbone."""
    weights: dict[Literal["r50", "r101", "r50_msra"], Weights]
    """Pretrained weights of the backbones; empty where training starts from random weights."""
    channels: int
    """Of neck and towers (paper: 256)."""
    levels: int
    """Of the feature pyramid, from stride 8 (paper: 5)."""
    pixel_scale: float
    """Multiplies every pixel number of the paper's resizing and cropping (short side 800)."""
    object_scale: float
    """Multiplies FCOS's regression ranges and RetinaNet's anchors."""
    pad_divisor: int
    """Images are padded to a multiple of it."""
    normalise: Literal["caffe", "unit"]
    """Input normalisation: BGR mean of the paper's weights, or mean and deviation 127.5."""
    batch_size: int
    lr: float
    backbone_lr_mult: float
    warmup_iters: int
    steps_per_epoch: int
    """Of COCO's part; schedules that the paper gives in iterations are scaled by it (paper: 7330)."""
    epoch_scale: float
    """Multiplies epochs and learning-rate steps of the schedules."""
    workers: int
    """Processes that load data for a training."""
    log_interval: int
    """Steps between two lines of the metrics."""
    compute: Compute = Compute()


class Catalogue(Entry):
    """All of it, cross-checked."""

    trainings: dict[str, Training]
    variants: dict[str, Variant]
    evaluations: dict[str, Evaluation]
    tables: dict[str, Table]
    claims: dict[str, Claim]

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
        """Return the evaluations of a training, in the catalogue's order."""
        return [e for e in self.evaluations.values() if e.training == training]

    def select(self, patterns: list[str]) -> list[Training]:
        """Return the trainings that match any of the names or patterns, in the catalogue's order.

        Raises:
            UserError: a pattern that matches nothing.
        """
        for pattern in patterns:
            if not fnmatch.filter(self.trainings, pattern):
                raise unknown_name("training or pattern", pattern, self.trainings)
        return [t for t in self.trainings.values() if any(fnmatch.fnmatchcase(t.name, p) for p in patterns)]


def read_yaml(path: Path) -> Any:
    """Return a YAML file's content.

    Raises:
        UserError: the file is absent or not YAML; the message names the file and the line.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{_shown(path)} does not exist; create it or correct the name.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{_shown(path)} is not valid YAML: {' '.join(str(error).split())}") from None


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], data: Any, where: str) -> M:
    """Validate data against a model; a violation becomes one sentence that names place, key and remedy."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{where}: {'; '.join(_violation(model, e) for e in error.errors())}") from None


def _violation(model: type[BaseModel], error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        fields = _fields_at(model, error["loc"][:-1])
        return str(unknown_name("key", str(error["loc"][-1]), fields))
    if error["type"] == "missing":
        return f"the key {place!r} is missing; add it"
    given = f", not {error['input']!r}" if isinstance(error["input"], str | int | float) else ""
    return f"{place}: {error['msg']}{given}" if place else str(error["msg"])


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Return the field names of the model that a location inside ``model`` points at."""
    for part in loc:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [a for a in (annotation, *getattr(annotation, "__args__", ())) if isinstance(a, type)]
        nested = [a for a in inner if issubclass(a, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def no_such_branch(training: Training, variant: str, variants: dict[str, Variant], where: str = "") -> UserError:
    """Return the error for a variant that keeps a branch which the training does not have."""
    fit = [name for name, entry in variants.items() if entry.branch in training.branches]
    return UserError(
        f"{where}{training.name} has no branch {variants[variant].branch!r} for variant {variant!r}; "
        f"variants that it has: {', '.join(fit)}."
    )


@functools.cache
def load(experiments: Path = EXPERIMENTS) -> Catalogue:
    """Read and cross-check the whole catalogue.

    Raises:
        UserError: any invalid or inconsistent entry, naming file, key and the nearest valid name.
    """
    trainings = {}
    path = experiments / "trainings.yaml"
    for name, entry in read_yaml(path).items():
        trainings[name] = parse(Training, {"name": name, **entry}, f"{_shown(path)}, {name}")
    for training in trainings.values():
        if training.init and training.init_file is None and training.init not in trainings:
            raise unknown_name("training", training.init, trainings, f"{_shown(path)}, {training.name}, init")

    path = experiments / "evaluations.yaml"
    data = read_yaml(path)
    variants = {name: parse(Variant, v, f"{_shown(path)}, {name}") for name, v in data["variants"].items()}
    evaluations = {}
    for training, names in data["evaluations"].items():
        if training not in trainings:
            raise unknown_name("training", training, trainings, _shown(path))
        for variant in names:
            if variant not in variants:
                raise unknown_name("variant", variant, variants, f"{_shown(path)}, {training}")
            if variants[variant].branch not in trainings[training].branches:
                raise no_such_branch(trainings[training], variant, variants, f"{_shown(path)}: ")
            evaluation = Evaluation(training=training, variant=variant)
            evaluations[evaluation.name] = evaluation

    tables = {}
    for path in sorted((experiments / "paper").glob("table*.yaml")):
        table = parse(Table, read_yaml(path), _shown(path))
        for row in table.rows:
            if row.evaluation not in evaluations:
                raise unknown_name("evaluation", row.evaluation, evaluations, f"{_shown(path)}, {row.id}")
            for column in set(row.paper) - set(table.metrics):
                raise unknown_name("column", column, table.metrics, f"{_shown(path)}, {row.id}")
        tables[table.name] = table

    claims = {}
    path = experiments / "claims.yaml"
    for name, entry in read_yaml(path).items():
        claim = parse(Claim, {"name": name, **entry}, f"{_shown(path)}, {name}")
        for evaluation_name in (claim.higher, claim.lower):
            if evaluation_name not in evaluations:
                raise unknown_name("evaluation", evaluation_name, evaluations, f"{_shown(path)}, {name}")
        claims[name] = claim
    return Catalogue(trainings=trainings, variants=variants, evaluations=evaluations, tables=tables, claims=claims)


def load_tier(name: str, experiments: Path = EXPERIMENTS) -> Tier:
    """Return a tier by name, or from the path of a YAML file; a tier with ``extends`` changes keys of another.

    Raises:
        UserError: unknown tier, unknown or missing key.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else experiments / "tiers" / f"{name}.yaml"
    if not path.exists():
        raise unknown_name("tier", name, [p.stem for p in (experiments / "tiers").glob("*.yaml")])
    data = dict(read_yaml(path))
    base = data.pop("extends", None)
    if base is not None:
        data = load_tier(base, experiments).model_dump() | data
    return parse(Tier, data | {"name": path.stem}, _shown(path))


def load_dataset(name: str, experiments: Path = EXPERIMENTS) -> Dataset:
    """Return a dataset by name, or from the path of a YAML file.

    Raises:
        UserError: unknown dataset, unknown or missing key.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else experiments / "datasets" / f"{name}.yaml"
    if not path.exists():
        raise unknown_name("dataset", name, [p.stem for p in (experiments / "datasets").glob("*.yaml")])
    return parse(Dataset, {"name": path.stem} | read_yaml(path), _shown(path))
