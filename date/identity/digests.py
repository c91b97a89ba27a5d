"""The identity of a run: digests of its config, its data, the training code and the seed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from date.catalogue import Tier, Training, load, load_tier
from date.catalogue.publication import load_paper
from date.errors import UserError
from date.files import file_digest
from date.identity.code import code_fingerprint, module_digests
from date.identity.config import resolve

CARRIED_OUT = ("num_workers", "persistent_workers")
"""Keys of a config that say how a run is carried out and can't change what it gives."""


def networks_digest() -> str:
    """Return the SHA-256 of the configs of the networks that the paper's tables count, and of the code."""
    names = sorted({name for table in load().tables.values() for name, _ in table.networks})
    tier = load_tier(load_paper().reference_tier)
    own = {n: module_digests(load().training(n).modules) for n in names}
    own = {n: digests for n, digests in own.items() if digests}
    return config_digest(
        ({"modules": own} if own else {})
        | {"code": code_fingerprint()}
        | {n: resolve(load().training(n), tier, 0, None) for n in names}
    )


def config_digest(config: dict[str, Any]) -> str:
    """Return the SHA-256 of a config's canonical JSON, `CARRIED_OUT` left out."""

    def content(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: content(value) for key, value in item.items() if key not in CARRIED_OUT}
        return [content(value) for value in item] if isinstance(item, list | tuple) else item

    return hashlib.sha256(json.dumps(content(config), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def run_digest(training: Training, tier: Tier, seed: int, manifest_digest: str) -> str:
    """Return the identity of a run: a hash of resolved config, data manifest, training code, seed and initial weights.

    Of the Python modules of the experiments those count that the training uses.

    The same everywhere: no path enters it.
    """
    config = resolve(training, tier, seed, None)
    parts = [config_digest(config), manifest_digest, code_fingerprint(), str(seed)]
    parts += [f"{name} {digest}" for name, digest in module_digests(training.modules).items()]
    if training.init_file is not None:
        if not training.init_file.is_file():
            raise UserError(f"{training.name} starts from {training.init_file}, which is not a file; correct 'init'.")
        parts.append(file_digest(training.init_file))
    elif training.init_training is not None:
        parts.append(run_digest(load().training(training.init_training), tier, seed, manifest_digest))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def run_name(training: Training, tier: Tier, seed: int, digest: str) -> str:
    """Return the folder name of a run, e.g. ``mini-onenet-r50-coco-12e-s0-3f2a91c4d0``."""
    return f"{tier.name}-{training.name}-s{seed}-{digest[:10]}"
