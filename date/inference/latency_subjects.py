"""Networks whose latency is measured, by the name of an evaluation or the folder of a run."""

from __future__ import annotations

import json
from pathlib import Path

from date.catalogue import load, load_tier
from date.errors import UserError
from date.inference.evaluate import selection_of
from date.inference.latency import Subject, read_images
from date.inference.network import Choice, open_network
from date.training.run import find_run


def subject(name: str, tier: str, seed: int, runs: Path) -> Subject:
    """Return a trained network with images of its validation set.

    Args:
        name: of an evaluation of the catalogue, or the folder of a sealed run.
        tier: of the run.
        seed: of the run.
        runs: folder of all runs.

    Raises:
        UserError: no such evaluation or run, or its images are not here.
    """
    if Path(name).is_dir():
        network = open_network(Path(name).resolve())
        selection, label = network.selection(Choice()), network.name
    else:
        catalogue = load()
        evaluation = catalogue.evaluation(name)
        network = open_network(find_run(catalogue.training(evaluation.training), load_tier(tier), seed, runs))
        selection = selection_of(network.model.bbox_head, catalogue.variants[evaluation.variant])
        label = name
    annotations, folder = Path(network.source["ann_file"]), Path(network.source["data_prefix"]["img"])
    if not annotations.is_file():
        raise UserError(f"the validation images of {label} are not here ({annotations}); restore them.")
    names = [image["file_name"] for image in json.loads(annotations.read_text(encoding="utf-8"))["images"]]
    return Subject(label, network, selection, read_images(folder, names))
