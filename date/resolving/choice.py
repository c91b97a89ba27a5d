"""Which seeds of which trainings next: those that resolve the most open claims per hour, one bundle after the other.

A bundle brings the trainings of an open claim, a single training, or all trainings of a schedule that open claims rest
on, up to a number of seeds: runs of one schedule tell the spread together, so that a second seed of many networks can
resolve what a third of two can't. Of all bundles that fit
into the hours that are left, the one with the largest gain per hour is taken: the sum over all open claims of the
chance by which it raises their resolution (greedy choice under a budget, Khuller, Moss and Naor, *Inf. Process. Lett.*
70, 1999).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from date.resolving.chances import Counts, OpenClaim

STEPS = (1, 2, 4)
"""Seeds by which a bundle raises trainings above the least of them."""
LEAST_GAIN = 0.02
"""Claims that a bundle has to resolve on average to be worth its hours."""


@dataclass(frozen=True)
class Choice:
    """The seeds to train next."""

    counts: dict[str, int]
    """Seeds that each training would have."""
    added: dict[str, int]
    """Seeds to train, by training, in the order of the choice."""
    hours: float
    """Of one device."""
    before: dict[str, float]
    """By open claim, the chance that the seeds that are there resolve it: 0 but for draws at its limit."""
    after: dict[str, float]
    """By open claim, the chance that it is resolved with the added seeds."""

    @property
    def expected(self) -> float:
        """Open claims that are resolved on average."""
        return sum(self.after.values())


@dataclass
class Work:
    """The cost of runs, in hours.

    Args:
        hours: of a training and its evaluations, by name.
        starts: the training that another starts from, whose run with the same seed is trained first where it is not
        there.
    """

    hours: Callable[[str], float]
    starts: Mapping[str, str] = field(default_factory=dict)

    def cost(self, present: Counts, later: Counts) -> float:
        """Return the hours of one device from some seeds to more."""
        wanted = dict(later)
        for name, start in self.starts.items():
            if wanted.get(name, 0) > present.get(name, 0):
                wanted[start] = max(wanted.get(start, 0), wanted[name])
        return sum(
            self.hours(n) * (count - present.get(n, 0)) for n, count in wanted.items() if count > present.get(n, 0)
        )


def choose(claims: Sequence[OpenClaim], present: Counts, work: Work, budget: float, longest: float) -> Choice:
    """Choose seeds.

    Args:
        claims: that are open.
        present: seeds of every training that a claim rests on.
        work: what runs cost.
        budget: hours of all devices together.
        longest: hours that a single run may take.
    """
    start = dict(present)
    counts = dict(present)
    known: dict[tuple[object, ...], float] = {}

    def chance(claim: OpenClaim, later: Counts) -> float:
        key = (claim.name, tuple(later[name] for name in claim.trainings), claim.lent(later))
        if key not in known:
            known[key] = claim.chance(start, later)
        return known[key]

    before = {claim.name: chance(claim, counts) for claim in claims}
    chances = dict(before)
    order: list[str] = []
    spent = 0.0
    while True:
        best: tuple[float, dict[str, int], float] | None = None
        for bundle in _bundles(claims, counts):
            if any(bundle[n] > counts[n] and work.hours(n) > longest for n in bundle):
                continue
            cost = work.cost(counts, bundle)
            if cost <= 0 or spent + cost > budget + 1e-9:
                continue
            changed = {n for n in bundle if bundle[n] > counts[n]}
            touched = [claim for claim in claims if changed & set(claim.trainings)]
            now = {claim.name: chance(claim, bundle) for claim in touched}
            gain = sum(now[name] - chances[name] for name in now)
            if gain >= LEAST_GAIN and (best is None or gain / cost > best[0]):
                best = (gain / cost, bundle, cost)
        if best is None:
            break
        _, bundle, cost = best
        order += [n for n in bundle if bundle[n] > counts[n]]
        counts, spent = bundle, spent + cost
        chances = {claim.name: chance(claim, counts) for claim in claims}
    added = {n: counts[n] - start[n] for n in dict.fromkeys(order)}
    return Choice(counts, added, spent, before, chances)


def _bundles(claims: Sequence[OpenClaim], counts: Counts) -> Iterator[dict[str, int]]:
    """Yield the seeds that each training would have after a bundle, each once."""
    seen = set()
    wanted = {name for claim in claims for name in claim.trainings}
    asked: list[tuple[tuple[str, ...], tuple[int, ...]]] = []
    for group in dict.fromkeys(group for claim in claims for group in claim.groups):
        asked.append((tuple(name for name in group if name in wanted), STEPS[:2]))
    for claim in claims:
        asked.append((claim.trainings, STEPS))
        asked += [((name,), STEPS[:2]) for name in claim.trainings]
    for names, steps in asked:
        for more in steps:
            level = max(min(counts[name] for name in names), 1) + more
            bundle = {**counts, **{name: max(counts[name], level) for name in names}}
            key = tuple(sorted(bundle.items()))
            if key not in seen:
                seen.add(key)
                yield bundle
