# What can be asked for by name beside `all`: the report, tables, figures, any one of them, a training, an evaluation.
from snakemake.cli import get_argument_parser

from date.catalogue.targets import find_target, named_targets

WANTED = named_targets(CATALOGUE)


# With a file that shows results go the results: else one that was made of fewer, or is committed, would count as done.
GROUP_FILES = {
    "report": [f"{REPORT}/index.html", *REPORT_RESULTS],
    "tables": [f"{REPORT}/tables.md", *TABLES_RESULTS],
    "figures": [f"{REPORT}/figures.md", *FIGURES_RESULTS],
}


def files_of(name, target):
    """Return the files of a table, a figure, a training or an evaluation."""
    if name in CATALOGUE.tables:
        return [f"{REPORT}/tables/{name}.md", *table_results(name)]
    if name in CATALOGUE.drawn:
        return [f"{REPORT}/figures/{name}.svg", *figure_results(name)]
    return of_runs(target.trainings, EVALUATION if target.evaluated else PROVENANCE)


for target, files in {**GROUP_FILES, **{name: files_of(name, target) for name, target in WANTED.items()}}.items():

    rule:
        name:
            target
        input:
            files,
        localrule: True
        message:
            f"{target}: {files[0]}"


def check_targets(requested):
    """Raise for a target that does not exist, with the nearest one, or that the tier has no data for."""
    for target in requested:
        if target.startswith(("results/", "reports/", "logs/")):
            continue  # a file: Snakemake finds the rule that makes it
        for training in find_target(CATALOGUE, target, []).trainings:
            resolve(CATALOGUE.training(training), TIER, 0, None)


if workflow.is_main_process and Path(sys.argv[0]).name == "snakemake":
    try:
        check_targets(get_argument_parser().parse_known_args(sys.argv[1:])[0].targets)
    except UserError as error:
        raise WorkflowError(str(error))
