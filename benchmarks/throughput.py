r"""Images/s and memory of DATE-F's training step under every option of speed, against MMDetection's FCOS: on one GPU.

    python -m benchmarks.throughput                                    # 800x1333, batch 16, at most 8 minutes
    python -m benchmarks.throughput --device cpu --height 96 --width 160 --batch 2 --rounds 2 --steps 2 --warm-up 1 \
        --only "MMDetection's FCOS, TF32 off" "DATE-F, fp32"

A step is all that is done for a batch: images and annotations go to the device, forward, matching, losses, backward,
clipping, update, and the record of the losses. Ours is the trainer's own, from pinned memory as its loader gives it.
MMDetection's is its released configuration (`fcos_r50-caffe_fpn_gn-head_1x_coco`: SGD, clipping at 35) stepped by
its own ``train_step``, from memory that is not pinned, as its loader's default is. PyTorch lets convolutions use TF32
unless told otherwise: *as it comes* has that, *TF32 off* is float32 throughout, as our ``fp32`` is. Where mmcv's
compiled operators are not installed, MMDetection's focal loss takes some kernels in place of one; the first line says
whether they are.

Weights are random, learning rates 0; the images are random, with COCO's mean of 7 objects. All networks stay in memory
and take turns: a round is a block of steps of each, of which the first ones are not counted; numbers are medians over
the steps of all rounds, by the device's own clock. No round begins that would end after the minutes.

*The paper, hours* are those of all its trainings on one such device, with images of this size: the steps of each, at
the network's speed relative to DATE-F's in the catalogue. *Matching* is what the fastest setting saves where the first
step's matches are kept: cost, transfers and solution.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from date import compat

compat.activate()

import mmdet  # noqa: E402
import torch  # noqa: E402
from mmdet.models.data_preprocessors import DetDataPreprocessor  # noqa: E402
from mmdet.models.dense_heads import FCOSHead  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402

import date.models  # noqa: E402
import date.training.components  # noqa: E402, F401 - both register what configs name
from date.catalogue import Compute, load, load_tier  # noqa: E402
from date.errors import UserError, one_line  # noqa: E402
from date.identity.config import resolve  # noqa: E402
from date.identity.length import length  # noqa: E402
from date.memory import ran_out  # noqa: E402
from date.models.branches import OneToOneBranch  # noqa: E402
from date.planning.calibration import _copies, _prepared, device_name, random_batch  # noqa: E402
from date.planning.durations import published_step  # noqa: E402
from date.training.compiler import check_tools  # noqa: E402
from date.training.network import build_network, build_optimizer, set_precision, total_loss  # noqa: E402
from date.training.processes import Processes  # noqa: E402
from date.training.recorder import Recorder  # noqa: E402

AS_IT_COMES, TF32_OFF = "MMDetection's FCOS, as it comes", "MMDetection's FCOS, TF32 off"
RELEASED = "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py"
NETWORK, BASELINE = "date_f-r50-coco-12e", "fcos-r50-coco-12e"
FAST = Compute(precision="bf16", channels_last=True, compile=True, fused_optimizer=True)
"""The setting that docs/training.md documents as ``fast.yaml``."""
PLAIN, FASTEST = "DATE-F, fp32", "DATE-F, fast"
OURS: dict[str, tuple[str, Compute]] = {
    "FCOS, fp32": (BASELINE, Compute()),
    PLAIN: (NETWORK, Compute()),
    "DATE-F, tf32": (NETWORK, Compute(precision="tf32")),
    "DATE-F, tf32, fused, compiled": (NETWORK, Compute(precision="tf32", fused_optimizer=True, compile=True)),
    "DATE-F, bf16": (NETWORK, Compute(precision="bf16")),
    "DATE-F, bf16, channels last": (NETWORK, Compute(precision="bf16", channels_last=True)),
    FASTEST: (NETWORK, FAST),
}
KEPT = "DATE-F, fast, matches kept"
OBJECTS = 7


@dataclass
class Subject:
    """A network that takes its turns."""

    step: Callable[[], None]
    prepare: Callable[[], None]
    """Sets what is the process's alone, e.g. TF32."""
    resident: int = 0
    """Bytes that stay allocated between its turns."""
    seconds: list[float] = field(default_factory=list)
    peak: int = 0
    """Bytes, without those of the other networks."""
    problem: str = ""
    failed: bool = False
    """By an error that the benchmark does not know."""


def allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def stock_network() -> tuple[Any, Config]:
    """Return MMDetection's FCOS as it was released, and its configuration.

    In the registry, `date.models` puts a head and a preprocessor of its own in the place of these two.
    """
    config = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs" / RELEASED)
    config.model.backbone.pop("init_cfg", None)
    config.model.data_preprocessor.type, config.model.bbox_head.type = DetDataPreprocessor, FCOSHead
    model: Any = mmdet.registry.MODELS.build(config.model)
    return model, config


def stock(args: argparse.Namespace, device: torch.device, tf32: bool) -> Subject:
    """Return MMDetection's FCOS, stepped as MMEngine steps it."""
    torch.manual_seed(0)
    model, config = stock_network()
    model.init_weights()
    model.to(device).train()
    config.optim_wrapper.optimizer.lr = 0.0
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    batch = random_batch(args.height, args.width, args.batch, 80, OBJECTS)

    def step() -> None:
        model.train_step(dict(inputs=list(batch["inputs"]), data_samples=_copies(batch)), wrapper)

    def prepare() -> None:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = tf32  # True is PyTorch's default
        torch.backends.cudnn.benchmark = False

    return Subject(step, prepare)


def ours(args: argparse.Namespace, device: torch.device, name: str, compute: Compute, keep: bool = False) -> Subject:
    """Return one of our networks, stepped as the trainer steps it.

    Args:
        args: of the command.
        device: that it is trained on.
        name: of the training.
        compute: its options of speed.
        keep: keep the matches of the first step.
    """
    config = Config(resolve(load().training(name), load_tier("paper"), 0, None))
    config.model.backbone.pop("init_cfg", None)
    config.compute = compute.model_dump()
    if device.type == "cuda" and compute.compile:
        check_tools()
    set_precision(config.compute)
    torch.manual_seed(0)
    model: Any = build_network(config, device)
    optimizer, clip = build_optimizer(config, model)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    if keep:
        for branch in (module for module in model.modules() if isinstance(module, OneToOneBranch)):
            keep_matches(branch)
    batch = random_batch(args.height, args.width, args.batch, 80, OBJECTS)
    if device.type == "cuda":
        batch["inputs"] = [image.pin_memory() for image in batch["inputs"]]
    recorder = Recorder(Path("unused"), 50, 10**9, 10**9, Processes(0, 1, device))  # not opened: it writes nothing
    recorder.begin()
    steps = iter(range(1, 10**9))

    def step() -> None:
        total, losses = total_loss(model(**_prepared(model, config, batch, training=True), mode="loss"))
        total.backward()
        if clip is not None:
            losses["grad_norm"] = torch.nn.utils.clip_grad_norm_(trained, **clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recorder.add(next(steps), 0.0, losses, [])

    return Subject(step, lambda: set_precision(config.compute))


def keep_matches(branch: OneToOneBranch) -> None:
    """Let a branch match once, and give the same answer from then on."""
    match, kept = branch._match, list[Any]()

    def answer(*arguments: Any) -> Any:
        if not kept:
            kept.append(match(*arguments))
        return kept[0]

    branch._match = answer  # type: ignore[method-assign]


def subjects(args: argparse.Namespace, device: torch.device) -> dict[str, Subject]:
    """Build all networks; one that can't be built here says why."""
    found: dict[str, Subject] = {}
    makers: dict[str, Callable[[], Subject]] = {
        AS_IT_COMES: lambda: stock(args, device, tf32=True),
        TF32_OFF: lambda: stock(args, device, tf32=False),
        **{name: lambda how=how: ours(args, device, *how) for name, how in OURS.items()},  # type: ignore[misc]
        KEPT: lambda: ours(args, device, NETWORK, FAST, keep=True),
    }
    for name, make in makers.items():
        if args.only and name not in args.only:
            continue
        before = allocated(device)
        try:
            found[name] = make()
        except UserError as error:
            found[name] = Subject(lambda: None, lambda: None, problem=str(error))
        found[name].resident = allocated(device) - before
    return found


def turn(subject: Subject, warm_up: int, steps: int, device: torch.device) -> None:
    """Let a network take a block of steps, and add what the counted ones took."""
    subject.prepare()
    before = allocated(device)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    try:
        for _ in range(warm_up):
            subject.step()
        marks: list[Any] = []
        for _ in range(steps + 1):  # a step lasts from its beginning to the next one's: the host may run ahead
            marks.append(torch.cuda.Event(enable_timing=True) if cuda else time.perf_counter())
            if cuda:
                marks[-1].record()
            if len(marks) <= steps:
                subject.step()
        if cuda:
            torch.cuda.synchronize(device)
    except Exception as error:  # of a compiler, too: the other networks still have their turns
        subject.failed = not ran_out(error)
        subject.problem = "does not fit into the memory"
        if subject.failed:
            traceback.print_exc()
            subject.problem = f"FAILED: {one_line(error)[:200]}".replace("|", "/")
        with contextlib.suppress(RuntimeError):  # a GPU that failed may do nothing any more
            torch.cuda.empty_cache()
        return
    pairs = itertools.pairwise(marks)
    subject.seconds += [a.elapsed_time(b) / 1000 if cuda else b - a for a, b in pairs]
    if cuda:
        subject.peak = torch.cuda.max_memory_allocated(device) - before + subject.resident
        subject.resident += allocated(device) - before


def take_turns(found: dict[str, Subject], args: argparse.Namespace, device: torch.device) -> int:
    """Time the networks in turns, until the minutes are over, and return the number of whole rounds."""
    end, longest = BEGAN + 60 * args.minutes, 0.0
    for number in range(args.rounds):
        began = time.monotonic()
        if began + longest > end:
            return number
        for subject in found.values():
            if time.monotonic() > end:
                return number
            if not subject.problem:
                turn(subject, args.warm_up if number else 3 * args.warm_up, args.steps, device)
        longest = time.monotonic() - began if number else 0.0  # the first one chooses kernels and compiles
    return args.rounds


def paper_hours(seconds_per_step: float) -> float:
    """Return the hours of all of the paper's trainings on one such device, from DATE-F's seconds for its batch."""
    tier, trainings = load_tier("paper"), load().of_the_paper().trainings
    own = published_step(trainings[NETWORK])
    return sum(length(t, tier).steps * seconds_per_step * published_step(t) / own for t in trainings.values()) / 3600


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Return the rows as Markdown, with the hours of the paper and the share of matching."""
    lines = ["| step | ms | images/s | against as it comes | against TF32 off | GiB | the paper, hours |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|"]

    def timed(name: str) -> bool:
        return name in rows and not rows[name]["problem"]

    for name, row in rows.items():
        if row["problem"]:
            lines.append(f"| {name} | {row['problem']} | | | | | |")
            continue
        ratios = [
            f"{row['images_per_second'] / rows[other]['images_per_second']:.2f}" if timed(other) else ""
            for other in (AS_IT_COMES, TF32_OFF)
        ]
        gib = f"{row['gib']:.1f}" if row["gib"] else ""
        hours = f"{row['paper_hours']:,.0f}" if row["paper_hours"] else ""
        speed = f"{1000 * row['seconds']:.1f} | {row['images_per_second']:.1f}"
        lines.append(f"| {name} | {speed} | {' | '.join(ratios)} | {gib} | {hours} |")
    if timed(FASTEST) and timed(KEPT):
        share = 100 * (1 - rows[KEPT]["seconds"] / rows[FASTEST]["seconds"])
        lines += ["", f"Matching: {share:.1f} % of the fast setting's step."]
    if timed(PLAIN) and timed(FASTEST):
        hours = [rows[name]["paper_hours"] for name in (PLAIN, FASTEST)]
        said = f"{hours[0]:,.0f} GPU hours in float32, {hours[1]:,.0f} in the fast setting"
        lines += ["", f"The paper's {len(load().of_the_paper().trainings)} trainings: {said}."]
    return lines


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=6, help="at most")
    parser.add_argument("--steps", type=int, default=8, help="counted, of each network in a round")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before them; thrice as many in the first round")
    parser.add_argument("--minutes", type=float, default=8, help="no round begins that would end later")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows of the table, for a trial")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


BEGAN = time.monotonic()


def main() -> None:
    args = parsed()
    device = torch.device(args.device)
    MMLogger.get_instance("date", log_level="ERROR")
    init_default_scope("mmdet")
    found = subjects(args, device)
    rounds = take_turns(found, args, device)
    batch, rows = load_tier("paper").batch_size, dict[str, dict[str, Any]]()
    for name, subject in found.items():
        seconds = statistics.median(subject.seconds) if subject.seconds else 0.0
        problem = subject.problem or ("" if seconds else "no time")
        of_date = not problem and name in OURS and OURS[name][0] == NETWORK
        rows[name] = {
            "seconds": seconds,
            "images_per_second": 0.0 if problem else args.batch / seconds,
            "gib": subject.peak / 2**30,
            "paper_hours": paper_hours(seconds * batch / args.batch) if of_date else None,
            "problem": problem,
            "all_seconds": subject.seconds,
        }
    versions = compat.stack_versions()
    size = f"{args.height}x{args.width}, batch {args.batch}, {rounds} rounds"
    print(
        f"{device_name(device)}, {size}, PyTorch {versions['torch']}, mmcv's operators: {versions['mmcv_operators']}\n"
    )
    print("\n".join(table(rows)))
    if args.json is not None:
        facts = {"device": device_name(device), "versions": versions, "rounds": rounds, "arguments": vars(args)}
        args.json.write_text(json.dumps(facts | {"rows": rows}, indent=1, default=str) + "\n")
    if failed := [name for name, subject in found.items() if subject.failed]:
        raise SystemExit(f"{len(failed)} of {len(found)} networks failed; their tracebacks stand above")


if __name__ == "__main__":
    main()
