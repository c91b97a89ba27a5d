"""The command line: ``python -m date COMMAND``. PyTorch is imported only by commands that need it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from date import __version__
from date.errors import NO_SPACE, UserError

TIER_HELP = "size of the work: smoke, mini, paper, another file of experiments/tiers/, or the path of one"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    0: done. 2: a mistake of the user's, or a failure that is understood, told in one sentence. 75: a training that
    saved its state and left before its end; the same command resumes it.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        status = args.command(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        print(f"error: {error.filename or 'a file'} can't be written: {error.strerror}; make room.", file=sys.stderr)
        return 2
    return status or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m date", description="Train, evaluate and tabulate the networks of the DATE paper."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a network, or resume it; the last line printed is the sealed run's folder",
        description="Train a network, or resume it where it was interrupted. SIGTERM, SIGUSR1 or the end of the time "
        "budget make it save its state at the next step and leave with status 75: run the same command again. A second "
        "signal ends it at once. Several processes: torchrun --nproc-per-node N -m date train ...",
    )
    _add_run_options(train)
    train.add_argument(
        "--time-budget", type=_duration, metavar="TIME", help="save and leave before so many seconds, or [D-]HH:MM:SS"
    )
    train.add_argument(
        "--checkpoint-interval", type=_duration, default=600.0, metavar="TIME", help="between two checkpoints [600]"
    )
    train.add_argument(
        "--images-per-pass",
        type=_count,
        metavar="N",
        help="let N images through the network at a time, for less memory",
    )
    train.add_argument("--results", type=Path, metavar="DIR", help="also copy the run's small files there, for the DAG")
    train.set_defaults(command=_train)

    importing = commands.add_parser(
        "import-checkpoint", help="make a sealed run of a checkpoint that was trained elsewhere"
    )
    importing.add_argument("checkpoint", type=Path, help="a .pth, .pt or .safetensors file with the official names")
    importing.add_argument("--training", required=True, metavar="NAME", help="the training that it is a result of")
    importing.add_argument("--tier", default="paper", help=f"{TIER_HELP} [paper]")
    importing.add_argument("--seed", type=_seed, default=0, help="the run's place among the training's seeds [0]")
    importing.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept [runs]")
    importing.add_argument("--results", type=Path, metavar="DIR", help="also copy the run's small files there")
    importing.set_defaults(command=_import)

    evaluate = commands.add_parser("evaluate", help="evaluate a sealed run, every variant in one forward pass")
    _add_run_options(evaluate, "training name, or the folder of a sealed run")
    evaluate.add_argument("--variant", action="append", metavar="V", help="only this variant (repeatable)")
    evaluate.add_argument("--results", type=Path, metavar="DIR", help="write evaluation.json and detections.npz there")
    evaluate.set_defaults(command=_evaluate)

    status = commands.add_parser(
        "status",
        help="show where the runs of a tier stand",
        description="Show all runs of a tier: what `all` makes there, and what else lies in the runs folder.",
    )
    status.add_argument("--tier", help=TIER_HELP)
    status.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept [runs]")
    status.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="tells the present data [results]"
    )
    status.add_argument("--seeds", type=_seed, nargs="+", metavar="N", help="[those of experiments/config.yaml]")
    form = status.add_mutually_exclusive_group()
    form.add_argument(
        "--watch", type=_interval, nargs="?", const=10.0, metavar="SECONDS", help="again and again, until all are done"
    )
    form.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(command=_status)

    listing = commands.add_parser("list", help="show the catalogue")
    listing.add_argument("what", choices=["trainings", "evaluations", "rows", "claims"])
    listing.add_argument("--json", action="store_true", help="print one JSON array")
    listing.set_defaults(command=_list)

    show = commands.add_parser("config", help="print the resolved MMEngine config of a run")
    show.add_argument("training")
    show.add_argument("--tier", help=TIER_HELP)
    show.add_argument("--seed", type=int, default=0)
    show.set_defaults(command=_config)

    data = commands.add_parser("data", help="prepare datasets").add_subparsers(required=True, metavar="ACTION")
    prepare = data.add_parser("prepare", help="generate or verify a dataset and write its manifest")
    prepare.add_argument("dataset", help="a file of experiments/datasets/, or the path of one")
    prepare.add_argument("--output", type=Path, metavar="FILE", help="manifest; printed by default")
    prepare.set_defaults(command=_data_prepare)

    complexity = commands.add_parser("complexity", help="count parameters and operations of the paper's networks")
    complexity.add_argument("--json", action="store_true", help="print JSON")
    complexity.set_defaults(command=_complexity)

    report = commands.add_parser("report", help="make tables, figures and page from sealed results")
    report.add_argument("--tier", help=TIER_HELP)
    report.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    report.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR")
    report.add_argument("--where", action="store_true", help="only print the path of the page that was made")
    report.set_defaults(command=_report)
    return parser


def _add_run_options(parser: argparse.ArgumentParser, name_help: str = "training name") -> None:
    parser.add_argument("training", help=name_help)
    parser.add_argument("--tier", help=TIER_HELP)
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept [runs]")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed; give an integer from 0 on")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of images; give an integer from 1 on")
    return int(text)


def _duration(text: str) -> float:
    """Return seconds from a number of them or from Slurm's ``[D-]HH:MM:SS``."""
    days, _, rest = text.rpartition("-")
    parts = rest.split(":")
    try:
        numbers = [float(part) for part in parts]
        whole = int(days or "0")
    except ValueError:
        numbers, whole = [], 0
    if not 1 <= len(numbers) <= 3 or any(not 0 <= n < float("inf") for n in numbers) or (days and len(numbers) < 3):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; give seconds, MM:SS, HH:MM:SS or D-HH:MM:SS")
    seconds = 0.0
    for number in numbers:
        seconds = 60 * seconds + number
    return 86400 * whole + seconds


def _interval(text: str) -> float:
    seconds = _duration(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError("0 is no interval; give the seconds between two looks")
    return seconds


def _tier_name(args: argparse.Namespace) -> str:
    from date.config import load_settings

    return args.tier or load_settings().tier


def _train(args: argparse.Namespace) -> int:
    from date.catalogue import load, load_tier
    from date.results import export_run
    from date.training.interruption import RESUME_ME, Interrupted
    from date.training.options import Options
    from date.training.run import train

    training, tier = load().training(args.training), load_tier(_tier_name(args))
    options = Options(args.checkpoint_interval, args.images_per_pass)
    try:
        run = train(training, tier, args.seed, args.runs.resolve(), args.threads, options, args.time_budget)
    except Interrupted as interrupted:
        print(f"{training.name} seed {args.seed}: {interrupted}", file=sys.stderr)
        return RESUME_ME
    if int(os.environ.get("RANK", "0")) == 0:
        if args.results is not None:
            export_run(run, args.results)
        print(run)
    return 0


def _import(args: argparse.Namespace) -> None:
    from date.catalogue import load, load_tier
    from date.importing import import_checkpoint
    from date.results import export_run

    training, tier = load().training(args.training), load_tier(args.tier)
    run = import_checkpoint(args.checkpoint, training, tier, args.runs.resolve(), args.seed)
    if args.results is not None:
        export_run(run, args.results)
    print(run)


def _evaluate(args: argparse.Namespace) -> None:
    from date.catalogue import load, load_tier
    from date.evaluation.evaluate import evaluate, write_evaluation
    from date.training.run import find_run

    if (run := Path(args.training)).is_dir():
        run = run.resolve()
    else:
        run = find_run(load().training(args.training), load_tier(_tier_name(args)), args.seed, args.runs.resolve())
    record, detections = evaluate(run, args.variant, args.threads, args.tier)
    if args.results is not None:
        write_evaluation(record, detections, args.results)
    for name, variant in record["variants"].items():
        numbers = "  ".join(f"{k} {'-' if v is None else f'{v:.1f}'}" for k, v in variant["metrics"].items())
        print(f"{record['training']}/{name}: {numbers}")


def _status(args: argparse.Namespace) -> None:
    from date import status
    from date.catalogue import load_tier
    from date.config import load_settings
    from date.survey import Survey

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that stops early, such as `head`, ends it quietly
    settings, tier = load_settings(), load_tier(_tier_name(args))
    seeds = args.seeds or settings.seeds
    trainings = settings.trainings or tier.trainings
    survey = Survey(tier, trainings, lambda training: seeds, args.runs, args.results)
    if args.json:
        print(status.as_json(tier.name, survey.look()))
    elif args.watch is None:
        status.show(survey)
    else:
        try:
            status.watch(survey, args.watch)
        except KeyboardInterrupt:  # the usual way to end it
            return


def _list(args: argparse.Namespace) -> None:
    from date.catalogue import Entry, load

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that stops early, such as `head`, ends a listing quietly
    catalogue = load()
    listed: list[tuple[Entry, tuple[str, ...]]]
    if args.what == "rows":
        rows = [row for table in catalogue.tables.values() for row in table.rows]
        numbers = [" ".join(f"{k} {v:g}" for k, v in row.paper.items()) for row in rows]
        listed = [(r, (r.id, r.label, r.evaluation, n)) for r, n in zip(rows, numbers, strict=True)]
    elif args.what == "claims":
        listed = [(c, (c.name, f"{c.higher} > {c.lower}", c.place, c.sentence)) for c in catalogue.claims.values()]
    elif args.what == "evaluations":
        evaluations = catalogue.evaluations.values()
        listed = [(e, (e.name, catalogue.variants[e.variant].about)) for e in evaluations]
    else:
        trainings = catalogue.trainings.values()
        listed = [(t, (t.id, t.name, t.source, f"{t.gpu_hours:g} GPU hours", t.why)) for t in trainings]
    if args.json:
        print(json.dumps([entry.model_dump(mode="json") for entry, _ in listed], indent=1))
        return
    widths = [max(map(len, column)) for column in zip(*(cells for _, cells in listed), strict=True)]
    for _, cells in listed:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _config(args: argparse.Namespace) -> None:
    from date.catalogue import load, load_tier
    from date.config import data_root, resolve

    config = resolve(load().training(args.training), load_tier(_tier_name(args)), args.seed, data_root())
    from mmengine.config import Config

    print(Config(config).pretty_text)


def _data_prepare(args: argparse.Namespace) -> None:
    from date.catalogue import load_dataset
    from date.config import data_root
    from date.data.coco import prepare
    from date.files import replace_text
    from date.training.run import generation_progress

    dataset = load_dataset(args.dataset)
    manifest = json.dumps(prepare(dataset, data_root(), generation_progress(dataset.name)), indent=1) + "\n"
    if args.output is None:
        print(manifest, end="")
    else:
        replace_text(args.output, manifest)


def _complexity(args: argparse.Namespace) -> None:
    from date.evaluation.complexity import print_complexity

    print_complexity(args.json)


def _report(args: argparse.Namespace) -> None:
    from date.reporting.report import report_page, write_report

    tier = _tier_name(args)
    print(report_page(args.reports, tier) if args.where else write_report(tier, args.results, args.reports))
