# Tables, figures and the page, from sealed results alone. What is asked for by name needs its own results only.
from date.catalogue.targets import find_target, trainings_of

RUN_FILES = (PROVENANCE, METRICS, EVALUATION)
COUNTED = f"{ALL_RESULTS}/{COMPLEXITY}"


def annotations_of(data):
    """Return the evaluations of annotations of the chosen trainings' datasets."""
    return [
        f"{RESULTS}/{ANNOTATIONS}/{name}.json" for name, entry in CATALOGUE.annotations.items() if entry.data in data
    ]


def table_results(name):
    """Return the results that the rows of one table need, chosen or not."""
    table = CATALOGUE.tables[name]
    files = of_runs(trainings_of(CATALOGUE, table), *RUN_FILES) + [COUNTED] * bool(table.networks)
    return files + [f"{RESULTS}/{ANNOTATIONS}/{row.annotations}.json" for row in table.rows if row.annotations]


def pictures_of(trainings):
    """Return the recorded pictures of those of some trainings that figures show images of."""
    return of_runs([name for name in trainings if name in CATALOGUE.pictured], PICTURES)


def figure_results(name):
    """Return the records of the trainings that one figure shows, and its evaluations or pictures."""
    figure = CATALOGUE.drawn[name]
    shown = pictures_of(figure.judged) if figure.views else of_runs(figure.judged, EVALUATION)
    return of_runs(figure.trainings, PROVENANCE, METRICS) + shown


CHOSEN_ANNOTATIONS = annotations_of({CATALOGUE.training(name).data for name in TRAININGS})
TABLES_RESULTS = [*of_runs(TRAININGS, *RUN_FILES), *CHOSEN_ANNOTATIONS, COUNTED]
REPORT_RESULTS = [*TABLES_RESULTS, *pictures_of(TRAININGS)]
FIGURES_RESULTS = [
    *of_runs(TRAININGS, PROVENANCE, METRICS),
    *of_runs(find_target(CATALOGUE, "figures", TRAININGS).evaluated, EVALUATION),
    *pictures_of(TRAININGS),
]


rule make_report:
    input:
        REPORT_RESULTS,
    output:
        report(f"{REPORT}/index.html", category="Report", labels={"tier": TIER.name}),
    log:
        f"{LOGS}/report.log",
    localrule: True
    params:
        tier=SETTINGS.tier,
        # Which seeds were asked for: the page names those that have no result.
        settings=SETTINGS.model_dump_json(include={"seeds", "seeds_of", "trainings"}),
    message:
        "making the report"
    shell:
        "python -m date report --tier {params.tier:q} --settings {params.settings:q} 2>&1" + LOGGED


rule make_tables:
    input:
        TABLES_RESULTS,
    output:
        f"{REPORT}/tables.md",
    log:
        f"{LOGS}/tables.log",
    localrule: True
    params:
        tier=SETTINGS.tier,
    message:
        "making all tables"
    shell:
        "python -m date report --tier {params.tier:q} --only tables 2>&1" + LOGGED


rule make_figures:
    input:
        FIGURES_RESULTS,
    output:
        f"{REPORT}/figures.md",
    log:
        f"{LOGS}/figures.log",
    localrule: True
    params:
        tier=SETTINGS.tier,
    message:
        "making all figures"
    shell:
        "python -m date report --tier {params.tier:q} --only figures 2>&1" + LOGGED


rule make_table:
    input:
        lambda wildcards: table_results(wildcards.table),
    output:
        multiext(f"{REPORT}/tables/{{table}}", ".md", ".csv", ".tex"),
    log:
        f"{LOGS}/{{table}}.log",
    localrule: True
    params:
        tier=SETTINGS.tier,
    message:
        "making {wildcards.table}"
    shell:
        "python -m date report --tier {params.tier:q} --only {wildcards.table} 2>&1" + LOGGED


rule make_figure:
    input:
        lambda wildcards: figure_results(wildcards.figure),
    output:
        report(f"{REPORT}/figures/{{figure}}.svg", category="Figures", labels={"figure": "{figure}"}),
        multiext(f"{REPORT}/figures/{{figure}}", ".png", ".pdf"),
    log:
        f"{LOGS}/{{figure}}.log",
    localrule: True
    params:
        tier=SETTINGS.tier,
    message:
        "making {wildcards.figure}"
    shell:
        "python -m date report --tier {params.tier:q} --only {wildcards.figure} 2>&1" + LOGGED


wildcard_constraints:
    table="|".join(CATALOGUE.tables),
    figure="|".join(CATALOGUE.drawn),
