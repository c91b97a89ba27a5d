# What the rules share: the settings, the chosen trainings, and where their results lie.
import functools
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from date.catalogue import load, load_dataset, load_tier
from date.experiments.folders import of_paper
from date.catalogue.publication import load_paper
from date.catalogue.settings import load_settings
from date.datasets.files import annotation_file
from date.errors import UserError
from date.identity import parts
from date.identity.config import resolve
from date.identity.digests import networks_digest
from date.planning.dag import ranks
from date.planning.durations import Durations
from date.results import (
    ANNOTATIONS,
    COMPLEXITY,
    DETECTIONS,
    EVALUATION,
    LATENCY,
    MANIFESTS,
    METRICS,
    PICTURES,
    PROVENANCE,
)

if Path.cwd().resolve() != Path(workflow.basedir).resolve():
    raise WorkflowError(f"leave --directory out, or name {workflow.basedir}: jobs run in the project's folder.")

try:
    SETTINGS = load_settings(dict(config))
    TIER = load_tier(SETTINGS.tier)
    CATALOGUE = load()
    TRAININGS = [training.name for training in CATALOGUE.chosen(TIER, SETTINGS.trainings)]
    DATASET_FILES = {load_dataset(reference).name: reference for reference in TIER.datasets.values()}
    if workflow.is_main_process and (left_out := CATALOGUE.left_out(TIER, SETTINGS.trainings)):
        print(f"note: {left_out}", file=sys.stderr)
    for name in TRAININGS:
        resolve(CATALOGUE.training(name), TIER, 0, None)
except UserError as error:
    raise WorkflowError(str(error))

# A job that has its results does not fail because a line of its log can't be written; tee says so.
LOGGED = " | {{ tee -ai {log:q} || cat > /dev/null; }}"

# Two papers may have trainings and tiers of the same names: each has its own part of these folders.
ALL_RESULTS, ALL_RUNS, ALL_LOGS = (of_paper(Path(name)) for name in ("results", "runs", "logs"))
RESULTS = f"{ALL_RESULTS}/{TIER.name}"
REPORT = f"{of_paper(Path('reports'))}/{TIER.name}"
LOGS = f"{ALL_LOGS}/{TIER.name}"
RUN = f"{RESULTS}/{{training}}/seed{{seed}}"


def dataset_played(part):
    """Return the name of the dataset that plays the part of one of the paper's."""
    return load_dataset(TIER.datasets[part]).name


def dataset_of(wildcards):
    """Return the name of the dataset that a training sees."""
    return dataset_played(CATALOGUE.training(wildcards.training).data)


def initial_run(wildcards):
    """Return the exported provenance of the run that a training starts from, if it starts from one."""
    training = CATALOGUE.training(wildcards.training)
    if training.init_training is None:
        return []
    return f"{RESULTS}/{training.init_training}/seed{wildcards.seed}/{PROVENANCE}"


@functools.cache
def sections(training, seed):
    """Return the sections of a run's config, each with its content or digest."""
    return parts.config_parts(CATALOGUE.training(training), TIER, int(seed))


def section(name):
    """Return a function that gives one section of a run's config."""
    return lambda wildcards: sections(wildcards.training, wildcards.seed).get(name, f"no {name}")


def own_modules(wildcards):
    """Return the Python modules of the experiments that a run uses, with their digests."""
    return parts.module_parts(CATALOGUE.training(wildcards.training))


def starts_from(wildcards):
    """Return what a run starts from, with its digest."""
    return parts.initial_part(CATALOGUE.training(wildcards.training), TIER, int(wildcards.seed))


def pictured_how(training):
    """Return what decides which images of a training are recorded for pictures, and what of them; "" for none."""
    choice = CATALOGUE.picture_choice(training)
    return "" if choice is None else f"{choice} {CATALOGUE.pictures.floor:g} {CATALOGUE.pictures.nms:g}"


@functools.cache
def job_ranks():
    """Return the priorities of all jobs on GPUs by rule and training."""
    return ranks(CATALOGUE, TIER, Durations(TIER, ALL_RESULTS, ALL_RUNS))


def rank(rule):
    """Return the function that gives the priority of a rule's jobs: the longest remaining path first."""
    return lambda wildcards: job_ranks()[rule, wildcards.training]


def of_runs(trainings, *files):
    """Return the paths of result files for every seed of some trainings."""
    return [
        f"{RESULTS}/{training}/seed{seed}/{file}"
        for training in trainings
        for seed in SETTINGS.seeds_for(training)
        for file in files
    ]


wildcard_constraints:
    training="|".join(map(re.escape, CATALOGUE.trainings)),
    seed=r"\d+",
