"""The command line: ``python -m date COMMAND``. PyTorch is imported only by commands that need it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
        description="Train a network, or resume it where it was interrupted. SIGTERM, SIGUSR1, Ctrl-C or the end of "
        "the time budget make it save its state at the next step and leave with status 75: run the same command again. "
        "A second signal ends it at once. Several processes: torchrun --nproc-per-node N -m date train ...",
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
        type=_images_per_pass,
        metavar="N",
        help="let N images through the network at a time, for less memory (0: all of the process's)",
    )
    train.add_argument(
        "--job",
        type=_minutes,
        metavar="MINUTES",
        help="train as a job of the DAG with this time limit (0: none): leave before it, be started again by Slurm, "
        "wait while another process trains the same run",
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

    found = commands.add_parser(
        "import-detections",
        help="score detections made elsewhere, or take a training log, as the results of a training",
        description="Score detections made elsewhere against the tier's validation annotations, take a training log's "
        "curve, or both, as results of a training, marked as imported. Importing the same again changes nothing.",
    )
    found.add_argument("file", type=Path, nargs="?", help="COCO results, odgt or detections.npz, see `score`")
    found.add_argument("--training", required=True, metavar="NAME", help="the training that they are a result of")
    found.add_argument(
        "--variant", metavar="V", help="how they were selected, see evaluations.yaml [the training's first]"
    )
    found.add_argument("--log", type=Path, metavar="FILE", help="MMDetection 2's *.log.json or MMEngine's scalars.json")
    found.add_argument("--source", metavar="TEXT", help="where the files come from, for the provenance")
    found.add_argument("--tier", default="paper", help=f"{TIER_HELP} [paper]")
    found.add_argument("--seed", type=_seed, default=0, help="the place among the training's seeds [0]")
    found.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="the folder of all results [results]"
    )
    found.add_argument("--replace", action="store_true", help="replace results that are there already")
    found.set_defaults(command=_import_detections)

    evaluate = commands.add_parser("evaluate", help="evaluate a sealed run, every variant in one forward pass")
    _add_run_options(evaluate, "training name, or the folder of a sealed run")
    evaluate.add_argument("--variant", action="append", metavar="V", help="only this variant (repeatable)")
    evaluate.add_argument(
        "--job", action="store_true", help="evaluate as a job of the DAG: be started again by Slurm after a preemption"
    )
    evaluate.add_argument(
        "--results", type=Path, metavar="DIR", help="write evaluation.json, detections.npz and pictures.json there"
    )
    evaluate.set_defaults(command=_evaluate)

    _add_score(commands)

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
    listing.add_argument("what", choices=["experiments", "trainings", "evaluations", "rows", "claims"])
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON array")
    form.add_argument("--markdown", action="store_true", help="print docs/experiments.md (of experiments alone)")
    listing.set_defaults(command=_list)

    planning = commands.add_parser(
        "plan",
        help="list what is cached, what would run and why, and what it costs",
        description="List what targets of the DAG need: what is cached, what would run and why, GPU hours, makespan "
        "with its lower bound and critical path, disk. Nothing is written, and neither GPU nor data are needed.",
    )
    planning.add_argument("targets", nargs="*", metavar="TARGET", help="all, table05, figure3, a training ... [all]")
    planning.add_argument("--tier", help=TIER_HELP)
    planning.add_argument(
        "--gpus", type=_count, nargs="+", default=[1, 2, 4, 8], metavar="N", help="numbers of GPUs [1 2 4 8]"
    )
    planning.add_argument(
        "--seeds", type=_seed, nargs="+", metavar="SEED", help="in place of those in experiments/config.yaml"
    )
    planning.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    planning.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")
    planning.add_argument("--cached", action="store_true", help="list what is cached job by job, too")
    planning.add_argument("--json", action="store_true", help="print one JSON object")
    planning.set_defaults(command=_plan)

    calibrate = commands.add_parser(
        "calibrate",
        help="time a few training steps on this machine, for `plan` and the order of jobs",
        description="Time training steps and inference of each kind of network that the tier trains, on random images "
        "of the tier's size, and write results/<tier>/calibration.json. No data or weights are needed.",
    )
    calibrate.add_argument("--tier", help=TIER_HELP)
    calibrate.add_argument("--steps", type=_count, default=10, metavar="N", help="timed for each network [10]")
    calibrate.add_argument("--threads", type=_count, metavar="N", help="CPU threads")
    calibrate.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    calibrate.add_argument("--json", action="store_true", help="print the file's content")
    calibrate.set_defaults(command=_calibrate)

    schema = commands.add_parser("schema", help="write the JSON schemas of the YAML files below experiments/")
    schema.add_argument(
        "--output", type=Path, default=Path("experiments/schema"), metavar="DIR", help="[experiments/schema]"
    )
    schema.set_defaults(command=_schema)

    show = commands.add_parser("config", help="print the resolved MMEngine config of a run")
    show.add_argument("training")
    show.add_argument("--tier", help=TIER_HELP)
    show.add_argument("--seed", type=int, default=0)
    show.set_defaults(command=_config)

    doctor = commands.add_parser(
        "doctor",
        help="check what the work needs: packages, GPUs, data, weights, disk, Slurm; a line each",
        description="Check what the work needs, a line each with the remedy; nothing is submitted. Exit status 2 where "
        "something would stop the work.",
    )
    doctor.add_argument("--tier", help=f"{TIER_HELP} [the profile's]")
    doctor.add_argument(
        "--profile",
        action="append",
        type=Path,
        metavar="DIR",
        help="of Snakemake, as you will give it (repeatable) [slurm for its tier, else workflow/profiles/local]",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(command=_doctor)

    data = commands.add_parser("data", help="verify and show datasets").add_subparsers(required=True, metavar="ACTION")
    verify = data.add_parser(
        "verify", help="check datasets, generating or converting what is to be made; everything wrong is listed"
    )
    verify.add_argument(
        "datasets",
        nargs="*",
        metavar="DATASET",
        help="files of experiments/datasets/, or paths of such [those that the tier trains on, and its weights]",
    )
    verify.add_argument("--tier", help=TIER_HELP)
    verify.add_argument("--deep", action="store_true", help="also decode every image")
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    verify.add_argument("--output", type=Path, metavar="FILE", help="write the manifest of the one dataset there")
    verify.set_defaults(command=_data_verify)

    samples = data.add_parser("samples", help="draw pictures of generated datasets with their annotations")
    samples.add_argument("datasets", nargs="+", metavar="DATASET", help="datasets that have 'scenes'")
    samples.add_argument("--output", type=Path, required=True, metavar="FILE", help="the JPEG to write")
    samples.add_argument("--count", type=int, default=8, help="images of each dataset [8]")
    samples.set_defaults(command=_data_samples)

    ceiling = data.add_parser(
        "nms-recall",
        help="which share of the annotated objects NMS would keep",
        description="Greedy class-wise NMS on the annotated boxes in the file's order, all with score 1, without "
        "ignored regions; prints the share of boxes that survive, in percent.",
    )
    ceiling.add_argument("--gt", type=Path, required=True, metavar="FILE", help="COCO annotations or CrowdHuman odgt")
    ceiling.add_argument(
        "--iou", type=_share, action="extend", nargs="+", metavar="T", help="a box goes over this IoU [0.5 to 0.7]"
    )
    ceiling.add_argument("--clip", action="store_true", help="clip boxes to their images first [as annotated]")
    ceiling.add_argument("--images", type=Path, metavar="DIR", help="images whose sizes an odgt file lacks, for --clip")
    ceiling.add_argument("--json", action="store_true", help="print one JSON object")
    ceiling.set_defaults(command=_nms_recall)

    complexity = commands.add_parser("complexity", help="count parameters and operations of the paper's networks")
    complexity.add_argument("--json", action="store_true", help="print JSON")
    complexity.set_defaults(command=_complexity)

    lint = commands.add_parser("lint-paper", help="recompute the paper's own arithmetic and list what does not agree")
    lint.add_argument("--json", action="store_true", help="print one JSON array")
    lint.set_defaults(command=_lint_paper)

    report = commands.add_parser("report", help="make tables, figures and page from sealed results")
    report.add_argument("--tier", help=TIER_HELP)
    report.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    report.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR")
    report.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a table or figure, e.g. table05, or all: tables, figures",
    )
    report.add_argument(
        "--settings",
        type=_settings,
        metavar="JSON",
        help='in place of those of experiments/config.yaml, as the DAG has them: {"seeds": [0, 1]}',
    )
    report.add_argument(
        "--status",
        type=Path,
        metavar="FILE",
        help="what `date status --json` printed: why a seed has no result is told from it",
    )
    report.add_argument("--where", action="store_true", help="only print the path of the page that was made")
    report.set_defaults(command=_report)
    return parser


SCORE_HELP = """\
All metrics are in percent; null where undefined (no object in the range).
coco: AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl. crowdhuman: AP (at IoU 0.5), mMR (lower is better), Recall.
Detections: a detections.npz of `evaluate`; COCO results, a JSON list of {image_id, category_id, bbox: [x, y, width,
height], score}; or CrowdHuman odgt, a JSON object per line with ID and dtboxes, a list of {box: [x, y, width, height],
score}. What was treated in some standard way is counted on standard error."""


def _add_score(commands: Any) -> None:
    score = commands.add_parser(
        "score",
        help="score a file of detections, ours or anybody's, against annotations",
        description="Score a file of detections against annotations, without network, GPU or PyTorch.",
        epilog=SCORE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument("--protocol", choices=["coco", "crowdhuman"], required=True)
    score.add_argument("--gt", type=Path, required=True, metavar="FILE", help="COCO annotations or CrowdHuman odgt")
    score.add_argument("--detections", type=Path, required=True, metavar="FILE", help="npz, COCO results or odgt")
    score.add_argument("--variant", metavar="V", help="which array of a detections.npz [the first]")
    score.add_argument("--json", action="store_true", help="print one JSON object, in percent, null where undefined")
    score.add_argument(
        "--engine",
        choices=["faster-coco-eval", "pycocotools"],
        default="faster-coco-eval",
        help="of COCO's metrics; both give the same numbers [faster-coco-eval]",
    )
    score.add_argument(
        "--area-thresholds",
        type=_side,
        nargs=2,
        metavar=("S", "M"),
        default=(32.0, 96.0),
        help="square roots of the areas in pixels that part small, medium and large, of COCO's metrics [32 96]",
    )
    score.add_argument(
        "--images", type=Path, metavar="DIR", help="images whose sizes an odgt file lacks, to clip boxes (crowdhuman)"
    )
    score.set_defaults(command=_score)


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


def _settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON object; give settings as {{"seeds": [0, 1]}}')
    return settings


def _minutes(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a time limit; give whole minutes, 0 for none")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of images; give an integer from 1 on")
    return int(text)


def _images_per_pass(text: str) -> int | None:
    return None if text == "0" else _count(text)


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


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IoU; give a number over 0 and at most 1")
    return value


def _side(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e5:
        raise argparse.ArgumentTypeError(f"{text!r} is not a length in pixels; give a number from 0 to 100000")
    return value


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
    from date.job import spread_over_gpus, train_as_job
    from date.results import export_run
    from date.training.interruption import RESUME_ME, Interrupted
    from date.training.options import Options
    from date.training.run import train

    if args.job is not None:
        spread_over_gpus()
    training, tier = load().training(args.training), load_tier(_tier_name(args))
    options = Options(args.checkpoint_interval, args.images_per_pass)

    def run_training(budget: float | None) -> Path:
        return train(training, tier, args.seed, args.runs.resolve(), args.threads, options, budget)

    try:
        run = run_training(args.time_budget) if args.job is None else train_as_job(args.job, run_training)
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


def _import_detections(args: argparse.Namespace) -> None:
    from date.catalogue import load, load_tier
    from date.imported_detections import import_detections

    folder = import_detections(
        load().training(args.training),
        load_tier(args.tier),
        args.results,
        file=args.file,
        log=args.log,
        variant=args.variant,
        seed=args.seed,
        source=args.source,
        replace=args.replace,
    )
    imported = json.loads((folder / "provenance.json").read_text())["imported"]
    for entry in [*imported["detections"].values(), *filter(None, [imported["log"]])]:
        _print_notes([f"{entry['file']}: {note}" for note in entry["notes"]])
    for name, variant in json.loads((folder / "evaluation.json").read_text())["variants"].items():
        numbers = "  ".join(f"{k} {'-' if v is None else f'{v:.1f}'}" for k, v in variant["metrics"].items())
        mark = "  (as reported by the log, not scored by us)" if variant.get("reported_by_log") else ""
        print(f"{args.training}/{name}: {numbers}{mark}")
    print(folder)


def _evaluate(args: argparse.Namespace) -> None:
    from date.catalogue import load, load_tier
    from date.evaluation.evaluate import evaluate, write_evaluation
    from date.job import preemptible
    from date.training.run import find_run

    if (run := Path(args.training)).is_dir():
        run = run.resolve()
    else:
        run = find_run(load().training(args.training), load_tier(_tier_name(args)), args.seed, args.runs.resolve())
    with preemptible() if args.job else contextlib.nullcontext():
        record, detections, pictures = evaluate(run, args.variant, args.threads, args.tier)
    if args.results is not None:
        write_evaluation(record, detections, pictures, args.results)
    for name, variant in record["variants"].items():
        numbers = "  ".join(f"{k} {'-' if v is None else f'{v:.1f}'}" for k, v in variant["metrics"].items())
        print(f"{record['training']}/{name}: {numbers}")


def _score(args: argparse.Namespace) -> None:
    from date.evaluation.score import score

    if args.area_thresholds[0] > args.area_thresholds[1]:
        raise UserError("--area-thresholds: the first is larger than the second; give small before medium.")
    scored = score(
        args.protocol, args.gt, args.detections, args.variant, args.area_thresholds, args.engine, args.images
    )
    _print_notes(scored.notes)
    if args.json:
        print(json.dumps(scored.metrics))
        return
    for name, value in scored.metrics.items():
        print(f"{name:<6}  {'-' if value is None else f'{value:.2f}':>6}")


def _nms_recall(args: argparse.Namespace) -> None:
    from date.evaluation.ground_truth import read_ground_truth
    from date.evaluation.nms_recall import THRESHOLDS, nms_recall

    ground_truth = read_ground_truth(args.gt, args.images)
    found = nms_recall(ground_truth, args.iou or THRESHOLDS, args.clip)
    _print_notes(ground_truth.notes)
    if args.json:
        print(json.dumps(found))
        return
    lines = [("all", found), *(found["classes"].items() if len(found["classes"]) > 1 else ())]
    width = max(len(name) for name, _ in lines)
    print("boxes clipped to the image" if found["clipped"] else "boxes as annotated, not clipped")
    print(f"{'':{width}}  objects" + "".join(f"  {f'IoU {iou}':>8}" for iou in found["recall"]))
    for name, part in lines:
        cells = ["-" if value is None else f"{value:.2f}" for value in part["recall"].values()]
        print(f"{name:{width}}  {part['objects']:>7}" + "".join(f"  {cell:>8}" for cell in cells))


def _print_notes(notes: list[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _status(args: argparse.Namespace) -> None:
    from date import status
    from date.catalogue import load_tier
    from date.config import load_settings
    from date.survey import Survey

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that stops early, such as `head`, ends it quietly
    settings, tier = load_settings(), load_tier(_tier_name(args))
    trainings = settings.trainings or tier.trainings
    survey = Survey(tier, trainings, lambda name: args.seeds or settings.seeds_for(name), args.runs, args.results)
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
    from date.catalogue import load
    from date.catalogue.listing import experiments_markdown, listing

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that stops early, such as `head`, ends a listing quietly
    if args.markdown:
        if args.what != "experiments":
            raise UserError(
                f"only experiments are listed as Markdown; leave --markdown out, or list {args.what} --json."
            )
        print(experiments_markdown(load()), end="")
        return
    listed = listing(load(), args.what)
    if args.json:
        print(json.dumps([entry.model_dump(mode="json") for entry, _ in listed], indent=1))
        return
    widths = [max(map(len, column)) for column in zip(*(cells for _, cells in listed), strict=True)]
    for _, cells in listed:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _plan(args: argparse.Namespace) -> None:
    from date.analysis.plan import make_plan, to_dict
    from date.analysis.plan_text import to_text
    from date.catalogue import load_tier
    from date.config import load_settings

    seeds = {} if args.seeds is None else {"seeds": args.seeds, "seeds_of": {}}
    settings = load_settings(({"tier": args.tier} if args.tier else {}) | seeds)
    tier = load_tier(settings.tier)
    plan = make_plan(args.targets or ["all"], tier, settings, args.results, args.runs, sorted(set(args.gpus)))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in `_list`
    print(json.dumps(to_dict(plan), indent=1) if args.json else to_text(plan, args.cached))


def _calibrate(args: argparse.Namespace) -> None:
    from date.catalogue import load, load_tier
    from date.config import load_settings

    settings = load_settings({"tier": args.tier} if args.tier else {})
    tier = load_tier(settings.tier)
    from date.training.calibration import calibrate, representatives, to_text

    chosen = representatives(load().select(settings.trainings or tier.trainings))
    found = calibrate(chosen, tier, args.steps, args.threads, args.results)
    print(json.dumps(found, indent=1) if args.json else to_text(found))


def _schema(args: argparse.Namespace) -> None:
    from date.catalogue.schema import write_schemas

    for path in write_schemas(args.output):
        print(path)


def _config(args: argparse.Namespace) -> None:
    from date.catalogue import load, load_tier
    from date.config import data_root, resolve

    config = resolve(load().training(args.training), load_tier(_tier_name(args)), args.seed, data_root())
    from mmengine.config import Config

    print(Config(config).pretty_text)


def _doctor(args: argparse.Namespace) -> int:
    from date.catalogue import load, load_tier
    from date.config import load_settings
    from date.doctor import examine, to_json
    from date.doctor.profile import read_profiles, settings_of

    on_slurm = settings_of(read_profiles([Path("slurm")]))
    if args.profile is None:
        local = _tier_name(args) != on_slurm.get("tier")
        args.profile = [Path("workflow/profiles/local" if local else "slurm")]
    changes = settings_of(read_profiles(args.profile)) | ({"tier": args.tier} if args.tier else {})
    settings = load_settings(changes)
    tier = load_tier(settings.tier)
    trainings = load().select(settings.trainings or tier.trainings)
    findings = []
    for finding in examine(tier, trainings, {t.name: len(settings.seeds_for(t.name)) for t in trainings}, args.profile):
        findings.append(finding)
        if not args.json:
            print(finding.line(), flush=True)
    if args.json:
        print(to_json(findings))
    return 2 if any(finding.status == "error" for finding in findings) else 0


def _data_verify(args: argparse.Namespace) -> None:
    from date.catalogue import load_dataset, load_tier
    from date.config import data_root
    from date.data.verify import datasets_of, report, verify, weights_problems
    from date.files import replace_text

    if args.output is not None and len(args.datasets) != 1:
        raise UserError("--output takes the manifest of one dataset; name one.")
    tier, root = load_tier(_tier_name(args)), data_root()
    datasets = [load_dataset(name) for name in args.datasets] or datasets_of(tier)
    weights = [] if args.datasets else weights_problems(tier, root)
    records = verify(datasets, root, args.deep)
    report(records, weights, datasets, args.json)
    if args.output is not None:
        replace_text(args.output, json.dumps(records[0]["manifest"], indent=1) + "\n")


def _data_samples(args: argparse.Namespace) -> None:
    from date.catalogue import load_dataset
    from date.config import data_files, data_root
    from date.data.coco import prepare
    from date.data.samples import write_samples

    datasets = [load_dataset(name) for name in args.datasets]
    for dataset in datasets:
        if dataset.scenes is None:
            raise UserError(f"dataset {dataset.name!r} is not generated; name one that has 'scenes'.")
        prepare(dataset, data_root())
    write_samples([data_files(d, data_root()).root for d in datasets], args.count, 4, args.output)


def _complexity(args: argparse.Namespace) -> None:
    from date.evaluation.complexity import print_complexity

    print_complexity(args.json)


def _lint_paper(args: argparse.Namespace) -> None:
    from date.analysis.lint import lint, to_json, to_text
    from date.catalogue import load
    from date.evaluation.complexity import complexity_table
    from date.evaluation.complexity import to_json as counted_json
    from date.results import complexity_figures

    checks = lint(load(), complexity_figures(json.loads(counted_json(complexity_table()))))
    print(to_json(checks) if args.json else to_text(checks))


def _report(args: argparse.Namespace) -> None:
    from date.config import load_settings
    from date.reporting.report import report_page, write_report

    tier = _tier_name(args)
    if args.where:
        print(report_page(args.reports, tier))
        return
    settings = load_settings(args.settings)
    print(write_report(tier, args.results, args.reports, args.only, settings, args.status))
