"""Build every component of a run without data, and the network without memory, so that wrong settings show early."""

from __future__ import annotations

from typing import Any

from date.catalogue import Training
from date.catalogue.modules import import_modules
from date.experiments.refusals import understood


def build_components(training: Training, config: dict[str, Any]) -> None:
    """Build network, optimiser, schedulers and transforms of a run's config.

    Raises:
        UserError: a component refuses its settings, or has a name that is not registered.
    """
    from date import stack

    stack.load()
    import torch
    from mmdet.registry import MODELS, TRANSFORMS
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    import date.models
    import date.training.components  # noqa: F401 - both register what a config names
    from date.training.network import build_optimizer, build_schedulers

    import_modules(training.modules)
    init_default_scope("mmdet")
    MMLogger.get_current_instance().setLevel("ERROR")  # it tells of every frozen parameter, on standard output
    built = Config(config)
    with understood():
        with torch.device("meta"):
            network: Any = MODELS.build(built.model)
        optimizer, _ = build_optimizer(built, network)
        build_schedulers(built, optimizer)
        for loader in (built.train_dataloader, built.val_dataloader):
            for step in loader.dataset.dataset.pipeline:
                TRANSFORMS.build(step)
