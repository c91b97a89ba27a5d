"""Import a checkpoint from elsewhere, e.g. the official DATE code, as a sealed run that is evaluated like any other."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from date.catalogue import Tier, Training, load_dataset
from date.catalogue.modules import import_modules
from date.catalogue.origin import origin
from date.catalogue.settings import data_root, dataset_name
from date.datasets.foreign import other_form
from date.datasets.prepare import prepare
from date.errors import UserError, listed
from date.files import file_digest, sealing
from date.identity.config import resolve
from date.identity.digests import config_digest, run_name
from date.progress import progress_lines
from date.results import CONFIG, METRICS, PROVENANCE, WEIGHTS
from date.training.run import PROVENANCE_SCHEMA

if TYPE_CHECKING:
    from torch import Tensor


def import_checkpoint(file: Path, training: Training, tier: Tier, runs: Path, seed: int = 0) -> Path:
    """Turn a checkpoint into a sealed run, or find the run that it already became, and return the run's folder.

    The checkpoint's names are those of MMDetection for backbone and neck and of the official DATE code for the head;
    ours are the same. The dataset has to be there, since an evaluation is only of the data that its run names.

    Args:
        file: the checkpoint, see `date.training.weights.load_checkpoint`.
        training: what the checkpoint is a training of.
        tier: at which size.
        runs: folder of all runs.
        seed: the place that the run takes among the training's seeds in results and tables; what the checkpoint was
            really seeded with is not known.

    Raises:
        UserError: bad data, an unsafe or damaged file, or weights that are not this network's (all differences are
            listed); nothing is written then.
    """
    if not file.is_file():
        raise UserError(f"{file} is not a file; correct the name of the checkpoint.")
    _refuse_texts(file)
    root = data_root()
    dataset = load_dataset(dataset_name(training, tier))
    manifest = prepare(dataset, root, progress_lines(f"preparing {dataset.name}"))
    source = {"file": file.name, "sha256": file_digest(file)}
    config_sha256 = config_digest(resolve(training, tier, seed, None))
    parts = (config_sha256, "imported", source["sha256"], manifest["digest"])
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    sealed = runs / run_name(training, tier, seed, digest)
    if sealed.exists():
        print(f"{file.name} is imported already as {sealed.name}", file=sys.stderr)
        return sealed
    config = resolve(training, tier, seed, root)
    import_modules(training.modules)
    state = _fitted_state(file, config["model"], f"{training.name} at tier {tier.name!r}")
    with sealing(sealed, f"importing {sealed.name}") as (folder, _):
        _write(folder, config, state)
        provenance = imported_provenance(training, tier, seed, digest, manifest, source) | {
            "config_sha256": config_sha256,
            "weights_sha256": file_digest(folder / WEIGHTS),
            "metrics_sha256": file_digest(folder / METRICS),
        }
        (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n")
    return sealed


def _refuse_texts(file: Path) -> None:
    """Raise a `UserError` where a file is a pointer of Git LFS, a web page or the like, and nothing of PyTorch's."""
    with file.open("rb") as stream:
        start = stream.read(4096)
    if (form := other_form(start)) is not None and form.remedy and not start.startswith(b"PK"):
        raise UserError(f"{file} is {form.name}; {form.remedy}.")


def imported_provenance(
    training: Training, tier: Tier, seed: int, digest: str, data: dict[str, Any], imported: dict[str, Any]
) -> dict[str, Any]:
    """Return the provenance of what was made elsewhere: the keys of a trained run's, None where nothing is known."""
    return {
        "schema_version": PROVENANCE_SCHEMA,
        "training": training.name,
        "tier": tier.name,
        "seed": seed,
        "run": run_name(training, tier, seed, digest),
        "run_digest": digest,
        "config_sha256": None,
        "code_sha256": None,
        "commit": None,
        "data": data,
        "weights_sha256": None,
        "metrics_sha256": None,
        "versions": None,
        "hardware": None,
        "precision": None,
        "compute": None,
        "steps": 0,
        "batch_size": None,
        "processes": None,
        "segments": [],
        "imported": imported,
        **origin(training, tier),
    }


def _fitted_state(file: Path, model_config: dict[str, Any], name: str) -> dict[str, Tensor]:
    """Return the checkpoint's weights in the network's types, after a strict comparison of names and shapes.

    Old checkpoints lack the backbone's counters of batches (``num_batches_tracked``), which PyTorch has had since 0.4.1
    and which inference does not use; they, and nothing else, may be absent and become zero.
    """
    from date import stack

    stack.load()
    import torch
    from mmengine.registry import DefaultScope

    import date.models  # noqa: F401 - registers what the config names
    from date.training.weights import load_checkpoint, match_state

    given = load_checkpoint(file)
    model_config = copy.deepcopy(model_config)
    model_config["backbone"].pop("init_cfg", None)
    with torch.device("meta"), DefaultScope.overwrite_default_scope("mmdet"):
        from mmdet.registry import MODELS

        wanted = MODELS.build(model_config).state_dict()
    given = {_own_name(name, wanted): value for name, value in given.items()}
    for counter in wanted.keys() - given.keys():
        if counter.startswith("backbone.") and counter.endswith(".num_batches_tracked"):
            given[counter] = torch.zeros((), dtype=torch.long)
    differences = match_state(wanted, given)
    if differences:
        raise UserError(
            f"{file} is not a checkpoint of {name} ({'; '.join(differences)}); name the training and tier that fit it."
        )
    broken = [name for name in wanted if given[name].is_floating_point() and not given[name].isfinite().all()]
    if broken:
        raise UserError(f"{file} has weights that are not finite: {listed(broken)}; give an earlier checkpoint.")
    return {name: given[name].to(like.dtype, copy=True).contiguous() for name, like in wanted.items()}


def _own_name(name: str, wanted: dict[str, Tensor]) -> str:
    """Return our name of a weight: the authors' list of towers, one for each branch, has two numbers in a name."""
    towers = re.fullmatch(r"bbox_head\.(cls|reg)_convs\.(\d+)\.(\d+)\.(.+)", name)
    if towers is None or name in wanted:
        return name
    kind, branch, layer, rest = towers[1], int(towers[2]), towers[3], towers[4]
    first = f"bbox_head.{kind}_convs" if branch == 0 else f"bbox_head.branch_{kind}_convs.{branch - 1}"
    return f"{first}.{layer}.{rest}"


def _write(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    from mmengine.config import Config
    from safetensors.torch import save_file

    from date.training.recorder import METRICS_SCHEMA

    Config(config).dump(str(folder / CONFIG))
    start = {"kind": "start", "schema_version": METRICS_SCHEMA, "imported": True, "steps": 0, "epochs": 0}
    (folder / METRICS).write_text(json.dumps(start) + "\n")
    save_file(state, folder / WEIGHTS)
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors keeps others out, whatever the umask says
