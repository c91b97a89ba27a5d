#!/bin/sh
# mmengine 0.10.7: a warm-up that ends after one step never ends; the learning rate keeps the factor of the warm-up for
# the whole training.
#
# A training of four epochs with the learning rate 0.1 and a warm-up at half of it in the first epoch, begin=0, end=1:
#
#     LinearLR, start_factor=0.5               0.05 0.05 0.05 0.05
#     ConstantLR, factor=0.5                   0.05 0.05 0.05 0.05
#     PyTorch's LinearLR, total_iters=1        0.05 0.1 0.1 0.1
#     PyTorch's ConstantLR, total_iters=1      0.05 0.1 0.1 0.1
#
# MMEngine's schedulers give the factor back in the last of their steps, end - 1, which here is also the first one; a
# warm-up with end=2 takes one epoch. No warning names it. Work-around: convert_to_iter_based=True, or one step more.
# Seen on x86-64 Linux, Python 3.11, 2026-12-01. Exits with a status other than 0 if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --prefer-binary mmengine==0.10.7 torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PROGRAM'
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode):
        return {"loss": (self.weight * inputs).sum()}


class Rates(Hook):
    def __init__(self):
        self.seen = []

    def before_train_epoch(self, runner):
        self.seen += runner.optim_wrapper.get_lr()["lr"]


def trained(**warm_up):
    """Return the learning rate in each of four epochs of two steps."""
    rates = Rates()
    Runner(
        model=Model(),
        work_dir="work",
        train_dataloader=torch.utils.data.DataLoader([{"inputs": torch.ones(1)}] * 2),
        train_cfg={"by_epoch": True, "max_epochs": 4},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        param_scheduler={"by_epoch": True, "begin": 0, **warm_up},
        custom_hooks=[rates],
        default_hooks={"checkpoint": None, "logger": None},
        log_level="ERROR",
    ).train()
    return rates.seen


def stepped(scheduler, **factor):
    """Return the learning rate in each of four epochs under a scheduler of PyTorch's."""
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    scheduler = scheduler(optimizer, total_iters=1, **factor)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


seen = {
    "LinearLR": trained(type="LinearLR", start_factor=0.5, end=1),
    "ConstantLR": trained(type="ConstantLR", factor=0.5, end=1),
    "LinearLR, end=2": trained(type="LinearLR", start_factor=0.5, end=2),
    "LinearLR, converted": trained(type="LinearLR", start_factor=0.5, end=1, convert_to_iter_based=True),
    "PyTorch's LinearLR": stepped(torch.optim.lr_scheduler.LinearLR, start_factor=0.5),
    "PyTorch's ConstantLR": stepped(torch.optim.lr_scheduler.ConstantLR, factor=0.5),
}
for name, rates in seen.items():
    print(name, *rates)
for name, rates in seen.items():
    assert rates == ([0.05] * 4 if name in ("LinearLR", "ConstantLR") else [0.05, 0.1, 0.1, 0.1]), name
PROGRAM
