"""The command line: ``python -m date COMMAND``. PyTorch is imported only by commands that need it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from date import __version__
from date.errors import UserError

TIER_HELP = "size of the work: smoke, mini, paper, another file of experiments/tiers/, or the path of one"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, or 2 after a mistake of the user's, told in one sentence."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        args.command(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m date", description="Train, evaluate and tabulate the networks of the DATE paper."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a network; the last line printed is the sealed run's folder")
    _add_run_options(train)
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

    listing = commands.add_parser("list", help="show the catalogue")
    listing.add_argument("what", choices=["experiments", "trainings", "evaluations", "rows", "claims"])
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON array")
    form.add_argument("--markdown", action="store_true", help="print docs/experiments.md (of experiments alone)")
    listing.set_defaults(command=_list)

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

    data = commands.add_parser("data", help="prepare datasets").add_subparsers(required=True, metavar="ACTION")
    prepare = data.add_parser("prepare", help="generate or verify a dataset and write its manifest")
    prepare.add_argument("dataset", help="a file of experiments/datasets/, or the path of one")
    prepare.add_argument("--output", type=Path, metavar="FILE", help="manifest; printed by default")
    prepare.set_defaults(command=_data_prepare)

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


def _tier_name(args: argparse.Namespace) -> str:
    from date.config import load_settings

    return args.tier or load_settings().tier


def _train(args: argparse.Namespace) -> None:
    from date.catalogue import load, load_tier
    from date.results import export_run
    from date.training.run import train

    training, tier = load().training(args.training), load_tier(_tier_name(args))
    run = train(training, tier, args.seed, args.runs.resolve(), args.threads)
    if args.results is not None:
        export_run(run, args.results)
    print(run)


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


def _lint_paper(args: argparse.Namespace) -> None:
    from date.analysis.lint import lint, to_json, to_text
    from date.catalogue import load
    from date.evaluation.complexity import complexity_table
    from date.evaluation.complexity import to_json as counted_json
    from date.results import complexity_figures

    checks = lint(load(), complexity_figures(json.loads(counted_json(complexity_table()))))
    print(to_json(checks) if args.json else to_text(checks))


def _report(args: argparse.Namespace) -> None:
    from date.reporting.report import report_page, write_report

    tier = _tier_name(args)
    made = report_page(args.reports, tier) if args.where else write_report(tier, args.results, args.reports, args.only)
    print(made)
