"""A run from its catalogue entry to its sealed folder."""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from date import config as configs
from date.catalogue import ROOT, Tier, Training, load, load_dataset
from date.data.coco import prepare, verify_weights
from date.errors import UserError
from date.files import file_digest, sealing
from date.results import METRICS, PROVENANCE

WEIGHTS, CONFIG = "final.safetensors", "config.py"
PROVENANCE_SCHEMA = 1


def train(training: Training, tier: Tier, seed: int, runs: Path, threads: int | None = None) -> Path:
    """Train a network, or find the run that already did, and return the sealed run's folder.

    Everything that can be wrong with names, data and weights is found before PyTorch is loaded. The folder appears
    complete, by a rename, or not at all; an interrupted training starts anew from its first step.

    Args:
        training: what to train.
        tier: how large.
        seed: of initialisation, data order and augmentation.
        runs: folder of all runs; work in progress lies in its ``.work``.
        threads: CPU threads; None lets PyTorch choose.

    Raises:
        UserError: bad data, missing weights, another process training the same run, or a loss that is not finite.
    """
    root = configs.data_root()
    dataset = load_dataset(configs.dataset_name(training, tier))
    manifest = prepare(dataset, root, generation_progress(dataset.name))
    verify_weights(tier, training.weights, root)
    initial = _initial_weights(training, tier, seed, runs, manifest["digest"])
    digest = configs.run_digest(training, tier, seed, manifest["digest"])
    sealed = runs / configs.run_name(training, tier, seed, digest)
    if sealed.exists():
        print(f"{sealed.name} is trained already", file=sys.stderr)
        return sealed
    with sealing(sealed, f"training {sealed.name}") as (folder, work):
        config = configs.resolve(training, tier, seed, root)
        began = time.time()
        _run(config, work, folder, f"{training.name} seed {seed}", threads, initial)
        provenance = _provenance(training, tier, seed, digest, config, manifest, folder, began)
        if initial is not None:
            source = training.init if training.init_file else initial.parent.name
            provenance["initialised_from"] = {"weights": source, "weights_sha256": file_digest(initial)}
        (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n")
    return sealed


def _initial_weights(training: Training, tier: Tier, seed: int, runs: Path, manifest_digest: str) -> Path | None:
    """Return the file of weights that a training starts from, if it starts from any."""
    if training.init is None or training.init_file is not None:
        return training.init_file
    return _sealed_run(load().training(training.init), tier, seed, runs, manifest_digest) / WEIGHTS


def find_run(training: Training, tier: Tier, seed: int, runs: Path) -> Path:
    """Return the sealed run of a training with the present settings, data and code.

    Raises:
        UserError: there is none.
    """
    dataset = load_dataset(configs.dataset_name(training, tier))
    manifest = prepare(dataset, configs.data_root(), generation_progress(dataset.name))
    return _sealed_run(training, tier, seed, runs, manifest["digest"])


def _sealed_run(training: Training, tier: Tier, seed: int, runs: Path, manifest_digest: str) -> Path:
    run = runs / configs.run_name(training, tier, seed, configs.run_digest(training, tier, seed, manifest_digest))
    if not run.exists():
        command = f"python -m date train {training.name} --tier {tier.name} --seed {seed}"
        raise UserError(
            f"{training.name} with seed {seed} has not been trained with the present settings; run: {command}"
        )
    return run


def generation_progress(name: str) -> Any:
    """Return a callback that reports the making of a dataset on standard error, every few hundred images."""

    def report(done: int, total: int) -> None:
        if done == total or done % 200 == 0:
            print(f"preparing {name}: {done}/{total} images", file=sys.stderr, flush=True)

    return report


def _run(
    config: dict[str, Any], work: Path, folder: Path, title: str, threads: int | None, initial: Path | None
) -> None:
    """Train by MMEngine's Runner and write config, metrics and weights into the folder."""
    # MMEngine repeats configuration and environment at every start; provenance.json has both.
    warnings.filterwarnings("ignore", category=UserWarning, module="mmengine")
    import torch
    from mmengine.config import Config
    from mmengine.runner import Runner
    from safetensors.torch import save_file

    import date.models
    import date.training.components  # noqa: F401 - both register what the config names

    if threads is not None:
        torch.set_num_threads(threads)
    cfg = Config(config)
    cfg.dump(str(folder / CONFIG))
    cfg.work_dir = str(work / "mmengine")
    cfg.log_level = logging.getLevelName(logging.WARNING)
    cfg.default_hooks = dict(logger=None, checkpoint=None)
    hook = dict(type="MetricsHook", path=str(folder / METRICS), interval=cfg.pop("metrics_interval"), title=title)
    cfg.custom_hooks = [hook]
    if initial is not None:
        cfg.custom_hooks.append(dict(type="FeatureExtractorHook", path=str(initial), sha256=file_digest(initial)))
    # MMDetection's datasets print pycocotools' chatter; standard output is for the run's folder alone.
    with (work / "stdout.log").open("w") as chatter, contextlib.redirect_stdout(chatter):
        runner = Runner.from_cfg(cfg)
        runner.train()
    state = {name: value.detach().cpu().contiguous() for name, value in runner.model.state_dict().items()}
    save_file(state, folder / WEIGHTS)


def _provenance(
    training: Training,
    tier: Tier,
    seed: int,
    digest: str,
    config: dict[str, Any],
    manifest: dict[str, Any],
    folder: Path,
    began: float,
) -> dict[str, Any]:
    import torch

    from date.compat import stack_versions

    ended = time.time()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "schema_version": PROVENANCE_SCHEMA,
        "training": training.name,
        "tier": tier.name,
        "seed": seed,
        "run": configs.run_name(training, tier, seed, digest),
        "run_digest": digest,
        "config_sha256": configs.config_digest(configs.resolve(training, tier, seed, None)),
        "code_sha256": configs.code_fingerprint(),
        "commit": _commit(),
        "data": manifest,
        "weights_sha256": file_digest(folder / WEIGHTS),
        "metrics_sha256": file_digest(folder / METRICS),
        "versions": stack_versions(),
        "hardware": {
            "devices": devices or ["cpu"],
            "processor": platform.processor() or platform.machine(),
            "cuda": torch.version.cuda if devices else None,
            "threads": torch.get_num_threads(),
        },
        "precision": "float32",
        "steps": _last_step(folder / METRICS),
        "batch_size": config["train_dataloader"]["batch_size"],
        "segments": [
            {"began": _utc(began), "ended": _utc(ended), "seconds": round(ended - began, 1), "reason": "finished"}
        ],
    }


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _last_step(metrics: Path) -> int:
    return max(json.loads(line).get("step", 0) for line in metrics.read_text().splitlines())


def _commit() -> str | None:
    """Return the project's commit with ``+`` where files differ from it; None outside a git checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def read_provenance(run: Path) -> dict[str, Any]:
    """Return the provenance of a sealed run.

    Raises:
        UserError: the folder is not a sealed run, or a file does not match its recorded digest.
    """
    path = run / PROVENANCE
    if not path.exists():
        raise UserError(f"{run} is not a sealed run (it has no {PROVENANCE}); name a folder that `date train` printed.")
    provenance = json.loads(path.read_text())
    for name, key in ((WEIGHTS, "weights_sha256"), (METRICS, "metrics_sha256")):
        if file_digest(run / name) != provenance[key]:
            raise UserError(f"{run / name} has changed since it was sealed; delete {run} and train it again.")
    return provenance
