"""Claims side by side over several data sets: one column for each dataset of each tier that has results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from date.catalogue import Catalogue, Claim, Complexity, Evaluation, Higher, Ordered, Tier, Within, load, load_dataset
from date.errors import UserError
from date.evaluation.score import metric_names
from date.reporting.claims import MISSING as NO_RESULT
from date.reporting.claims import Outcome, judge_all
from date.reporting.scores import MISSING, Sample, Scores, column_of, load_scores, number, signed
from date.reporting.seeds import audit_seeds
from date.results import RunResult, load_results

ABOUT = (
    "A cell has the verdict on a claim by the results of one data set, the difference that decides it with its 95 % "
    "interval over seeds and images, which holds at every look, and the number of seeds. Where a data set has "
    "trainings of its own, as crowds have, the same networks are compared on it, in AP50 where its protocol is "
    "CrowdHuman's. Claims that one data set alone can judge are left out, and so are claims on parameters and "
    "operations. Verdicts are not corrected for their number; each tier's claims.md says which survive that."
)


@dataclass(frozen=True)
class Column:
    """What one data set says."""

    dataset: str
    tier: Tier
    part: str
    """That the data set plays."""
    main_metric: str
    """The first number of its protocol, as the paper's tables name it."""
    scores: Scores
    results: list[RunResult]


def columns(tiers: Sequence[Tier], results_dir: Path, catalogue: Catalogue) -> list[Column]:
    """Return the data sets of some tiers that have results, in the order of the tiers and of their datasets.

    Raises:
        UserError: a tier without results.
    """
    found = []
    for tier in tiers:
        results = [run for run in load_results(results_dir, tier.name) if run.training in catalogue.trainings]
        results = audit_seeds(results, results_dir, tier.name).kept
        if not results:
            raise UserError(
                f"tier {tier.name!r} has no results in {results_dir / tier.name}; train it, or unpack its packed "
                f"results there."
            )
        scores = load_scores(results, results_dir, tier.name, catalogue)
        for part, dataset in tier.datasets.items():
            if any(catalogue.training(run.training).data == part for run in results):
                entry = load_dataset(dataset)
                metrics = metric_names(entry.protocol)
                main = column_of(metrics[0], metrics)
                found.append(Column(entry.name, tier, part, main, scores, results))
    return found


def transposed(claim: Claim, column: Column, catalogue: Catalogue) -> Claim | None:
    """Return a claim on AP about the same networks on another part of the data; None where there are none."""
    predicate = claim.predicate
    if not isinstance(predicate, Higher | Within | Ordered):
        return None
    names = {name: counterpart(name, column.part, catalogue) for name in predicate.evaluations}
    metrics = predicate.metrics if isinstance(predicate, Ordered) else [predicate.metric]
    if not all(names.values()) or metrics != ["AP"]:
        return None
    values: dict[str, object]
    if isinstance(predicate, Higher):
        values = {"above": names[predicate.above], "below": names[predicate.below], "metric": column.main_metric}
    elif isinstance(predicate, Within):
        values = {"evaluation": names[predicate.evaluation], "of": [names[name] for name in predicate.of]}
        values["metric"] = column.main_metric
    else:
        values = {"groups": [[names[name] for name in group] for group in predicate.groups]}
        values["metrics"] = [column.main_metric]
    return claim.model_copy(update={"predicate": predicate.model_copy(update=values)})


def counterpart(evaluation: str, part: str, catalogue: Catalogue) -> str | None:
    """Return the evaluation of the same network and variant on a part of the data, itself where it is on it."""
    found = catalogue.evaluations.get(evaluation)
    if found is None:  # of annotations
        return None
    training = catalogue.training(found.training)
    if training.data == part:
        return evaluation
    same = [
        other
        for other in catalogue.evaluations.values()
        if (other.variant == found.variant and _network(other, catalogue) == (part, *_network(found, catalogue)[1:]))
    ]
    return same[0].name if same else None


def _network(evaluation: Evaluation, catalogue: Catalogue) -> tuple[object, ...]:
    training = catalogue.training(evaluation.training)
    return training.data, training.model, training.options, training.backbone, training.weights, training.init


def matrix(tiers: Sequence[Tier], results_dir: Path) -> str:
    """Return claims by data sets, and the networks' scores, as Markdown.

    Raises:
        UserError: a tier without results, or no claim that two data sets can judge.
    """
    catalogue = load()
    found = columns(tiers, results_dir, catalogue)
    rows = _claims(found, catalogue)
    if not rows:
        names = ", ".join(column.dataset for column in found)
        raise UserError(f"no claim can be judged by two of {names}; name tiers that train the same networks.")
    head = [column.dataset for column in found]
    blocks = [ABOUT, _table(["claim", *head], rows), "Scores of the networks: the mean over seeds, their standard "
              "deviation, and their number.", _table(["network", *head], _networks(found, catalogue))]  # fmt: skip
    return "\n\n".join(blocks) + "\n"


def _claims(found: Sequence[Column], catalogue: Catalogue) -> list[list[str]]:
    """Return a row for each claim that two columns can judge."""
    judged = [_outcomes(column, catalogue) for column in found]
    rows = []
    for name, claim in catalogue.claims.items():
        if sum(name in outcomes for outcomes in judged) > 1:
            cells = [_cell(outcomes[name]) if name in outcomes else MISSING for outcomes in judged]
            rows.append([f"`{name}` ({claim.place or claim.folder})", *cells])
    return rows


def _outcomes(column: Column, catalogue: Catalogue) -> dict[str, Outcome]:
    """Return what a column says of claims: its own, and of others that ask the same of its networks the first."""
    own: list[Claim] = []
    others: dict[str, Claim] = {}
    for claim in catalogue.claims.values():
        if isinstance(claim.predicate, Complexity):
            continue
        trainings = {name.split("/")[0] for name in (*claim.evaluations, *claim.trainings)} & catalogue.trainings.keys()
        if {catalogue.training(name).data for name in trainings} == {column.part}:
            own.append(claim)
        elif (there := transposed(claim, column, catalogue)) is not None:
            others.setdefault(there.predicate.model_dump_json(exclude={"paper"}), there)
    asked = [*own, *others.values()]
    outcomes = judge_all(column.scores, column.results, column.tier, catalogue, None, asked)
    return {outcome.claim.name: outcome for outcome in outcomes if outcome.verdict != NO_RESULT}


def _cell(outcome: Outcome) -> str:
    part = outcome.main
    assert part is not None and part.estimate is not None
    digits, found = part.comparison.digits, part.estimate
    text = f"**{outcome.verdict}**<br>{signed(found.mean, digits)}"
    if found.low is not None and found.high is not None:
        text += f" ({signed(found.low, digits)} to {signed(found.high, digits)})"
    if part.comparison.margin:
        text += f"<br>claimed above {signed(part.comparison.margin, digits)}"
    return f"{text}<br>{' and '.join(map(str, dict.fromkeys(found.seeds)))} seeds"


def _networks(found: Sequence[Column], catalogue: Catalogue) -> list[list[str]]:
    """Return a row for each training, judged its main way, that two columns have; a score stands in one row alone."""
    rows, shown = [], set()
    for training in catalogue.trainings:
        name = catalogue.evaluations_of(training)[0].name
        samples = []
        for column in found:
            there = counterpart(name, column.part, catalogue)
            new = there is not None and (column.dataset, there) not in shown
            samples.append(column.scores.sample(there, column.main_metric) if there and new else Sample({}))
            shown.add((column.dataset, there))
        if sum(sample.n > 0 for sample in samples) > 1:
            rows.append([training, *map(_score, samples)])
    return rows


def _score(sample: Sample) -> str:
    spread = "" if sample.sd is None else f" ± {number(sample.sd)}"
    return f"{number(sample.mean)}{spread} ({sample.n})" if sample.n else MISSING


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
