# What the rules share: the settings, the chosen trainings, and where their results lie.
from snakemake.exceptions import WorkflowError

from date import config as configs
from date.catalogue import load, load_dataset, load_tier
from date.errors import UserError

try:
    SETTINGS = configs.load_settings(dict(config))
    TIER = load_tier(SETTINGS.tier)
    CATALOGUE = load()
    TRAININGS = {
        t.name: t for t in CATALOGUE.select(SETTINGS.trainings or TIER.trainings)
    }
    DATASETS = {
        name: load_dataset(configs.dataset_name(t, TIER)).name
        for name, t in TRAININGS.items()
    }
    DATASET_FILES = {
        load_dataset(reference).name: reference for reference in TIER.datasets.values()
    }
except UserError as error:
    raise WorkflowError(str(error))

RESULTS = f"results/{TIER.name}"
REPORT = f"reports/{TIER.name}"
LOGS = f"logs/{TIER.name}"
RUN = f"{RESULTS}/{{training}}/seed{{seed}}"


def of_all_runs(file):
    """Return a result file's path for every chosen training and seed."""
    return expand(f"{RUN}/{file}", training=TRAININGS, seed=SETTINGS.seeds)


wildcard_constraints:
    training="|".join(TRAININGS),
    seed=r"\d+",
