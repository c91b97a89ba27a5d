"""Check that the trainings' steps fit into a GPU's memory, by the table of `date.planning.memory`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from date.doctor import Finding
from date.doctor.profile import requests
from date.planning.memory import RESERVED, images_that_fit, memory, smallest_gpu

if TYPE_CHECKING:
    from date.catalogue import Tier, Training


def gpu_memory(
    tier: Tier, trainings: list[Training], profile: dict[str, Any], sizes: Sequence[int]
) -> Iterator[Finding]:
    """Report the GPU memory that trainings need; where GPUs are known, also which do not fit, and what would.

    Args:
        tier: whose batch counts.
        trainings: that are to be trained.
        profile: of Snakemake, for the GPUs of a training and the images that it lets through at a time.
        sizes: MiB of each GPU on this machine.
    """
    by_name = {training.name: training for training in trainings}
    most: dict[str, int] = {}
    for request in requests(profile, tier, trainings):
        if request.rule == "train":
            share = max(1, tier.batch_size // max(1, request.gpus()[1]))
            most |= {name: int(request.get("images_per_pass") or 0) or share for name in request.trainings}
    needs = {name: need for name, images in most.items() if (need := memory(by_name[name], tier, images)) is not None}
    if not needs:
        return
    largest = max(needs, key=lambda name: needs[name])
    text = f"{needs[largest] / 1024:.1f} GiB needed with {most[largest]} images at a time, by {largest}"
    if not sizes:
        gpu = smallest_gpu(needs[largest])
        yield Finding("gpu memory", "ok", f"{text}: GPUs of {gpu} GiB or more" if gpu else text)
        return
    least = min(sizes) - RESERVED
    small = [name for name, need in needs.items() if need > least]
    if not small:
        yield Finding("gpu memory", "ok", f"{text}, {min(sizes) / 1024:.0f} GiB there")
        return
    fit = min(images_that_fit(by_name[name], tier, most[name], least) for name in small)
    said = f"{text}, {min(sizes) / 1024:.0f} GiB there; too little for {len(small)} of {len(needs)} trainings"
    if fit:
        remedy = f"train with --images-per-pass {fit}, or set train.images_per_pass to {fit} in the profile"
        yield Finding("gpu memory", "error", said, remedy)
    else:
        yield Finding("gpu memory", "error", said, "use a larger GPU: not even one image at a time fits")
