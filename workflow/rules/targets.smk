# What can be asked for by name beside `all`, `report`, `tables` and `figures`: a table, a figure, a training, an evaluation.
from snakemake.cli import get_argument_parser

from date.errors import unknown_name

# Target: its files and the trainings that they need.
TARGETS = {
    **{name: ([f"{REPORT}/tables/{name}.md"], trainings_of(table)) for name, table in CATALOGUE.tables.items()},
    **{name: ([f"{REPORT}/figures/{name}.svg"], figure.trainings) for name, figure in CATALOGUE.figures.items()},
    **{name: (of_runs([name], "provenance.json"), [name]) for name in CATALOGUE.trainings},
    **{e.name: (of_runs([e.training], "evaluation.json"), [e.training]) for e in CATALOGUE.evaluations.values()},
}

for target, (files, _) in TARGETS.items():

    rule:
        name:
            target
        input:
            files,
        localrule: True


def check_targets(requested):
    """Raise for a target that does not exist, with the nearest one, or that the tier has no data for."""
    names = [*TARGETS, "all", "report", "tables", "figures"]
    for target in requested:
        if target.startswith(("results/", "reports/", "logs/")):
            continue  # a file: Snakemake finds the rule that makes it
        if target not in names:
            raise unknown_name("target", target, names)
        for training in TARGETS.get(target, ([], []))[1]:
            configs.resolve(CATALOGUE.training(training), TIER, 0, None)


if workflow.is_main_process and Path(sys.argv[0]).name == "snakemake":
    try:
        check_targets(get_argument_parser().parse_known_args(sys.argv[1:])[0].targets)
    except UserError as error:
        raise WorkflowError(str(error))
