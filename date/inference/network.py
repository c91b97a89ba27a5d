# ruff: noqa: E402 - MMDetection is imported by `stack`
"""A trained network for use: opened from a sealed run, a run in training, or a checkpoint, ready to detect."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from date import stack

stack.load()

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from numpy.typing import NDArray

import date.models
import date.training.components  # noqa: F401 - both register what a config names
from date.catalogue import Compute, Variant, load, load_tier, shown
from date.catalogue.modules import import_modules
from date.catalogue.origin import REMEDY, read_experiments_of
from date.errors import UserError
from date.experiments.folders import folders
from date.identity.config import resolve
from date.identity.digests import run_name
from date.inference.evaluate import Selection, batch_detections, selection_of
from date.inference.prepared import prepared
from date.models.head import DualAssignmentHead
from date.results import CHECKPOINTS, PROVENANCE
from date.training import checkpoint
from date.training.metric import category_ids
from date.training.network import set_precision
from date.training.run import CONFIG, PROVENANCE_SCHEMA, WEIGHTS, read_provenance
from date.training.weights import load_checkpoint

BRANCH_NAMES = ("o2o", "o2m")


@dataclass(frozen=True)
class Choice:
    """How a user wants the detections chosen, where that differs from the training's evaluation."""

    branch: str | None = None
    """``o2o`` or ``o2m`` of the dual-assignment head; None for the one that the evaluation keeps."""
    nms: float | None = None
    """IoU of class-wise NMS; None for what the evaluation does."""


@dataclass(frozen=True)
class Network:
    """A trained network on its device, and what has to be known to use it."""

    name: str
    """Of the run or the file, for messages."""
    model: Any
    """The detector, in evaluation mode."""
    config: Config
    """Of the training, as `date.identity.config.resolve` gives it."""
    training: str
    provenance: dict[str, Any] | None
    """Of a sealed run; None of anything else."""
    weights: Path
    """The file that holds its weights."""
    device: torch.device

    @property
    def run(self) -> Path | None:
        """Folder with the records of its run, sealed or in training; None of other files of weights."""
        folder = self.weights.parent
        if self.provenance is not None:
            return folder
        return folder.parent if (self.weights.suffix, folder.name) == (".ckpt", CHECKPOINTS) else None

    @property
    def validated_branch(self) -> str:
        """The branch by which its training validates."""
        branches = self.branches()
        return branches[getattr(self.model.bbox_head, "predict_from", 0) % len(branches)]

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the order of the network's outputs."""
        return list(self.source["metainfo"]["classes"])

    @property
    def source(self) -> Any:
        """The config of the validation images' dataset."""
        dataset = self.config.test_dataloader.dataset
        return dataset.get("dataset", dataset)

    @property
    def pipeline(self) -> list[dict[str, Any]]:
        """The validation images' pipeline from a decoded image to the network's input, as plain dicts."""
        steps = [dict(step) for step in self.source["pipeline"]]
        return [step for step in steps if step["type"] not in ("LoadImageFromFile", "LoadAnnotations")]

    @property
    def batch_size(self) -> int:
        """Images that the evaluation shows the network at once."""
        return int(self.config.test_dataloader.batch_size)

    def category_ids(self) -> list[int] | None:
        """Return the category id of each class, of the annotations that are judged; None where they are not here."""
        path = Path(self.source["ann_file"])
        return category_ids(path) if path.is_file() else None

    def variant(self, choice: Choice) -> Variant:
        """Return a way of judging the network that the catalogue names, changed as the user wants it.

        Raises:
            UserError: the network has no such branch.
        """
        branches = self.branches()
        if choice.branch is not None and choice.branch not in branches:
            has = "has one head" if branches == ["head"] else f"has the branch {' and '.join(branches)}"
            remedy = "leave --branch out" if len(branches) == 1 else f"name one of {', '.join(branches)}"
            raise UserError(f"{self.name} {has} and no branch {choice.branch!r}; {remedy}.")
        catalogue = load()
        evaluated = [catalogue.variants[e.variant] for e in catalogue.evaluations_of(self.training)]
        branch = choice.branch or (evaluated[0].branch if evaluated else branches[0])
        fitting = [variant for variant in evaluated if variant.branch == branch]
        if fitting:
            variant = fitting[0]
        else:
            variant = Variant(branch=branch, nms=self._own_nms(branch), about="by the network's own settings")
        return variant if choice.nms is None else variant.model_copy(update={"nms": choice.nms})

    def branches(self) -> list[str]:
        """Return the branches that the network can detect with; ``head`` where it has but one head."""
        head = self.model.bbox_head
        if not isinstance(head, DualAssignmentHead):
            return ["head"]
        return list(BRANCH_NAMES[: len(head.predictors)])

    def _own_nms(self, branch: str) -> float | None:
        head = self.model.bbox_head
        if isinstance(head, DualAssignmentHead):
            return head.branch(BRANCH_NAMES.index(branch)).test_cfg["nms"]
        nms = head.test_cfg.get("nms")
        return None if nms is None else float(nms["iou_threshold"])

    def selection(self, choice: Choice) -> Selection:
        """Return how detections are chosen."""
        return selection_of(self.model.bbox_head, self.variant(choice))


class Detector:
    """Detects as the evaluation does.

    Args:
        network: a trained network.
        selection: how detections are chosen.
        ids: category id of each class.
    """

    def __init__(self, network: Network, selection: Selection, ids: list[int]) -> None:
        self.model, self.ids = prepared(network.model), ids
        self.selections = {"chosen": selection}

    def detect(self, samples: Sequence[Any]) -> list[NDArray[np.float64]]:
        """Return the detections of some prepared images, run as one batch.

        Args:
            samples: what the pipeline gives for each image.

        Returns:
            Of each image (K, 7) rows of `date.evaluation.coco.DETECTION_COLUMNS`, best first.
        """
        with torch.inference_mode():
            batch = pseudo_collate(list(samples))
            return batch_detections(self.model, batch, self.selections, self.ids)["chosen"]


def open_network(path: Path, training: str | None = None, tier: str | None = None) -> Network:
    """Open a trained network.

    Args:
        path: a sealed run's folder, the working folder of a run in training (its newest checkpoint is taken), a
            checkpoint of such a folder, or a file of weights.
        training: what a file of weights is of.
        tier: and at which size.

    Raises:
        UserError: none of these, damaged, of another version, or weights of another network.
    """
    if path.is_dir() and (path / PROVENANCE).is_file():
        return _sealed(path)
    if path.is_file() and path.name == WEIGHTS and (path.parent / PROVENANCE).is_file():
        return _sealed(path.parent)
    if path.is_dir() and path.parent.name == ".work":
        return _in_training(path, None)
    if path.suffix == ".ckpt" and path.parent.parent.parent.name == ".work":
        return _in_training(path.parent.parent, path)
    if path.is_dir():
        runs = sorted(each.parent for each in path.glob(f"*/{PROVENANCE}"))
        instead = (
            f"one of the {len(runs)} runs in it, such as {runs[0]}" if runs else "a folder that `date train` printed"
        )
        raise UserError(f"{path} is not a sealed run (it has no {PROVENANCE}); name {instead}, or a file.")
    if not path.is_file():
        raise UserError(f"there is no {path}; name a sealed run's folder, a checkpoint or an exported network.")
    return _weights(path, training, tier)


def _sealed(run: Path) -> Network:
    try:
        provenance = json.loads((run / PROVENANCE).read_text(encoding="utf-8"))
        version = provenance.get("schema_version")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{run / PROVENANCE} is not a run's provenance ({error}); restore the folder.") from None
    if version != PROVENANCE_SCHEMA:
        raise UserError(
            f"{run} is of another version of this project (its provenance has schema {version}, this version reads "
            f"{PROVENANCE_SCHEMA}); use the version that made it, or train it again."
        )
    for name in (WEIGHTS, CONFIG):
        if not (run / name).is_file():
            raise UserError(f"{run} has no {name}; an import of detections alone has no network, name another run.")
    provenance = read_provenance(run)
    read_experiments_of(provenance)
    _register(provenance["training"], provenance)
    try:
        config = Config.fromfile(str(run / CONFIG))
    except Exception as error:  # whatever a config that was edited by hand raises
        raise UserError(f"{run / CONFIG} can't be read ({error}); restore the folder.") from None
    state = load_checkpoint(run / WEIGHTS)
    commit = provenance.get("commit")
    made_by = f"; it was trained by commit {commit}" if commit else ""
    return build(run.name, config, state, run / WEIGHTS, provenance["training"], provenance, made_by)


def _in_training(work: Path, path: Path | None) -> Network:
    """Open a run's newest good checkpoint, or a certain one, with the config that the catalogue has today."""
    catalogue = load()
    for training in catalogue.trainings.values():
        head, _, rest = work.name.partition(f"-{training.name}-s")
        seed, _, digest = rest.partition("-")
        if head and seed.isdecimal() and len(digest) == 10:
            tier = load_tier(head)
            if run_name(training, tier, int(seed), digest) == work.name:
                break
    else:
        read = ", ".join(map(shown, folders()))
        raise UserError(f"{work} is not the working folder of a run of {read}; name one below runs/.work/, or {REMEDY}")
    found = [path] if path is not None else [found for _, found in checkpoint.steps(work / CHECKPOINTS)][:1]
    if not found:
        raise UserError(f"{work} has no checkpoint yet; wait for the first one.")
    state = checkpoint.read(found[0])
    if not str(state["run_digest"]).startswith(digest):
        raise UserError(f"{found[0]} is a checkpoint of another run; put it back where it was.")
    config = Config(resolve(training, tier, int(seed), None))
    name = f"{work.name} at step {state['step']}"
    return build(name, config, state["model"], found[0], training.name)


def _weights(path: Path, training: str | None, tier: str | None) -> Network:
    state = load_checkpoint(path)
    if training is None or tier is None:
        raise UserError(
            f"{path} holds weights and not what network they are of; name it by --training and --tier (or import the "
            "file once, by `date import-checkpoint`)."
        )
    config = Config(resolve(load().training(training), load_tier(tier), 0, None))
    return build(path.name, config, state, path, training)


def _register(training: str, provenance: dict[str, Any]) -> None:
    """Import the Python modules of own experiments that a network needs.

    Raises:
        UserError: their folder is not among those in use.
    """
    known = load().trainings
    if training in known:
        import_modules(known[training].modules)
    elif modules := provenance.get("modules"):
        raise UserError(f"{training} is of own experiments with the modules {', '.join(modules)}; {REMEDY}")


def build(
    name: str,
    config: Config,
    state: dict[str, torch.Tensor],
    weights: Path,
    training: str,
    provenance: dict[str, Any] | None = None,
    made_by: str = "",
) -> Network:
    """Return a network with its weights, on the GPU where there is one, computing as the evaluation does.

    Raises:
        UserError: the weights are not this network's.
    """
    init_default_scope("mmdet")
    from mmdet.registry import MODELS

    _register(training, provenance or {})
    model_config = copy.deepcopy(config.model)
    model_config.backbone.pop("init_cfg", None)
    try:
        model = MODELS.build(model_config)
        model.load_state_dict(state)
    except (RuntimeError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{name} is of another version of this project, or its weights are of another network ({reason}){made_by}; "
            "use the version that made it, or train it again."
        ) from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_precision(Compute().model_dump())  # the paper's, whatever the training's
    return Network(name, model.to(device).eval(), config, training, provenance, weights, device)
