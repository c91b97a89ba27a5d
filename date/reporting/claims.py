"""The paper's comparative sentences beside our differences. Directions only: verdicts need statistics over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from date.catalogue import Claim
from date.reporting.scores import Sample, Scores


@dataclass(frozen=True)
class Outcome:
    """A claim with our numbers."""

    claim: Claim
    difference: Sample
    """Of ``higher`` minus ``lower``, paired over the seeds that both were trained with."""
    lacking: list[str]
    """Evaluations that have no result."""

    @property
    def word(self) -> Literal["as claimed", "not as claimed", "no difference", "missing"]:
        """Which way the mean difference points, as printed: with one decimal."""
        if self.difference.mean is None:
            return "missing"
        printed = round(self.difference.mean, 1)
        if printed == 0:
            return "no difference"
        return "as claimed" if printed > 0 else "not as claimed"


def judge(claim: Claim, scores: Scores) -> Outcome:
    """Compare a claim's two evaluations over equal seeds."""
    higher, lower = (scores.sample(name, claim.metric) for name in (claim.higher, claim.lower))
    lacking = [name for name, sample in ((claim.higher, higher), (claim.lower, lower)) if not sample.n]
    return Outcome(claim, higher.minus(lower), lacking)
