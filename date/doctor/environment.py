"""Python, its packages, the MMDetection stack and the GPUs of this machine."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

from date.catalogue import ROOT, load, load_tier
from date.catalogue.publication import load_paper
from date.doctor import Finding
from date.errors import UserError, listed, one_line
from date.identity.config import resolve
from date.training.compiler import REMEDY, missing_tool

if TYPE_CHECKING:
    from date.catalogue import Tier

LOCK = ROOT / "requirements.lock"
INSTALL = "make setup, or: pip install --no-deps -r requirements.lock"


def python() -> Finding:
    """Find out whether this is the Python that the project is made for."""
    text = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] != (3, 11):
        return Finding("python", "error", text, "Python 3.11 is needed: make setup, then source .venv/bin/activate")
    return Finding("python", "ok", text)


def pinned() -> dict[str, str]:
    """Return the versions in ``requirements.lock`` by package."""
    return dict(re.findall(r"^([a-zA-Z0-9._-]+)==([^\s;\\]+)", LOCK.read_text(), re.MULTILINE))


def packages() -> Iterator[Finding]:
    """Compare what is installed with what is pinned."""
    from packaging.requirements import Requirement

    wanted = pinned()
    needed = {Requirement(line).name for line in metadata_dependencies()}
    absent, other = [], []
    for name, version in wanted.items():
        here = installed(name)
        if here is None:
            absent.append(name)
        elif here.partition("+")[0] != version:  # a local label, e.g. +cu130, names the build
            other.append(f"{name} {here} (pinned: {version})")
    if found := [name for name in absent if name in needed and not (name == "mmcv-lite" and installed("mmcv"))]:
        yield Finding("packages", "error", f"not installed: {listed(found)}", INSTALL)
    elif other:
        text = f"{len(other)} of {len(wanted)} differ from requirements.lock: {listed(other)}"
        yield Finding("packages", "warning", text, f"results may differ in their last digits; {INSTALL}")
    elif absent:
        text = f"all that a run needs are as in requirements.lock; tools that are not installed: {listed(absent)}"
        yield Finding("packages", "ok", text)
    else:
        yield Finding("packages", "ok", f"all {len(wanted)} as in requirements.lock")


def metadata_dependencies() -> list[str]:
    """Return the direct dependencies in ``pyproject.toml``."""
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def installed(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def stack() -> Iterator[Finding]:
    """Build a small detector and run it on an image."""
    try:
        from date.compat import stack_versions

        versions = stack_versions()
        objects = detect()
    except UserError as error:
        yield Finding("mmdetection", "error", str(error), INSTALL)
    except Exception as error:  # whatever a broken installation raises
        yield Finding("mmdetection", "error", f"does not work here: {one_line(error)}", INSTALL)
    else:
        parts = " ".join(f"{name} {versions[name]}" for name in ("torch", "torchvision", "mmcv", "mmengine", "mmdet"))
        text = f"{parts}; operators: {versions['mmcv_operators']}; a detector was built and run ({objects} boxes)"
        yield Finding("mmdetection", "ok", text)


def detect() -> int:
    """Return how many boxes the paper's ``probe``, not trained, finds in noise."""
    from date import stack

    stack.load()
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    import date.models  # noqa: F401 - registers the heads
    from date.training.network import build_network

    probe = load_paper().probe
    config = Config(resolve(load().training(probe.training), load_tier(probe.tier), 0, None))
    config.model.backbone.pop("init_cfg", None)
    init_default_scope("mmdet")
    MMLogger.get_current_instance().setLevel("ERROR")  # it tells of every parameter
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        network: Any = build_network(config, torch.device("cpu")).eval()
        sample = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0)))
        image = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
        batch = network.data_preprocessor({"inputs": [image], "data_samples": [sample]}, training=False)
        (found,) = network.predict(batch["inputs"], batch["data_samples"])
    return len(found.pred_instances.bboxes)


def gpus(tier: Tier, on_slurm: bool) -> Iterator[Finding]:
    """Report the GPUs that PyTorch can use, and why it can't use the others."""
    if (torch := pytorch()) is None:
        return  # reported already
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    driver = driver_version()
    if not count:
        yield no_gpu(tier, on_slurm, driver, torch.version.cuda, [str(w.message) for w in said])
        return
    built = torch.cuda.get_arch_list()
    for index in range(count):
        device = torch.cuda.get_device_properties(index)
        text = (
            f"{index}: {device.name}, {device.total_memory / 2**30:.0f} GiB, capability {device.major}.{device.minor}"
        )
        text += f", CUDA {torch.version.cuda}, driver {driver or 'unknown'}"
        if not runs_on(device.major, device.minor, built):
            remedy = "install a build of PyTorch for this GPU (https://pytorch.org/get-started)"
            yield Finding("gpus", "error", f"{text}: PyTorch has no code for it ({' '.join(built)})", remedy)
        else:
            yield Finding("gpus", "ok", text)


def compiler(tier: Tier, on_slurm: bool) -> Iterator[Finding]:
    """Report whether networks can be compiled for GPUs, where the tier asks for it and works on GPUs."""
    here = bool(gpu_sizes())
    if not tier.compute.compile or not (here or on_slurm):
        return
    where = "" if here else " on this machine; the nodes may differ"
    if (missing := missing_tool()) is None:
        yield Finding("compiler", "ok", f"a C compiler and Python's headers are there for 'compile: true'{where}")
    else:
        yield Finding("compiler", "error" if here else "warning", f"'compile: true' needs {missing}{where}", REMEDY)


def pytorch() -> ModuleType | None:
    """Return PyTorch; None where it can't be imported, which `stack` reports."""
    try:
        import torch
    except Exception:  # an absent one, or a broken one, whose libraries fail to load in ways of their own
        return None
    return torch


def gpu_sizes() -> list[int]:
    """Return the memory in MiB of each GPU that PyTorch sees on this machine."""
    if (torch := pytorch()) is None:
        return []
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_properties(index).total_memory >> 20 for index in range(count)]


def no_gpu(tier: Tier, on_slurm: bool, driver: str | None, cuda: str | None, said: list[str]) -> Finding:
    """Return the finding for a machine on which PyTorch sees no GPU.

    Args:
        tier: that is to be worked at.
        on_slurm: the trainings run elsewhere.
        driver: version of NVIDIA's driver, None where there is none.
        cuda: version that PyTorch was built for.
        said: warnings of PyTorch.
    """
    if driver is not None:
        why = f" ({' '.join(said[0].split())})" if said else ""
        text = f"driver {driver} is there, but PyTorch with CUDA {cuda} can't use a GPU{why}"
        remedy = (
            f"update the driver, or install a PyTorch built for a CUDA before {cuda}; see also CUDA_VISIBLE_DEVICES"
        )
        return Finding("gpus", "warning" if on_slurm else "error", text, remedy)
    if on_slurm:
        return Finding("gpus", "ok", "none on this machine; trainings run as Slurm jobs")
    if tier.reference:
        return Finding(
            "gpus", "warning", "none: without one, a training of the paper takes months", "use a machine with one"
        )
    return Finding("gpus", "ok", f"none; the tier {tier.name!r} is made for CPUs")


def runs_on(major: int, minor: int, built: list[str]) -> bool:
    """Return whether PyTorch's compiled code runs on a GPU: sm_86 on 8.x from 8.6 on, compute_80 on all later ones."""
    for arch in built:
        kind, _, number = arch.partition("_")
        digits = re.match(r"\d+", number)
        if digits is None:
            continue
        had = divmod(int(digits[0]), 10)
        if (kind == "sm" and had[0] == major and had[1] <= minor) or (kind == "compute" and had <= (major, minor)):
            return True
    return False


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver, or None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split("\n")[0].strip() or None if done.returncode == 0 else None
