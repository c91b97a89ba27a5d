"""The judged claims as Markdown and CSV, one line a comparison, so that every number of a verdict can be recomputed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from date.catalogue import Tier
from date.catalogue.paper import own_mark
from date.catalogue.publication import load_paper
from date.reporting.claims import DECIDED, VERDICTS, Judged, Outcome, about, p_value, summary
from date.reporting.formats import marks
from date.reporting.scores import MISSING, signed

CSV_COLUMNS = (
    "claim", "place", "verdict", "comparison", "unit", "margin", "paper", "runs", "seeds", "differences", "mean",
    "error", "seed_error", "image_error", "freedom", "low", "high", "p", "noise", "comparison_verdict", "holm_p",
    "needs", "remarks",
)  # fmt: skip


def claims_markdown(outcomes: Sequence[Outcome], tier: Tier) -> str:
    """Return all claims with their verdicts as GitHub Markdown."""
    blocks = marks(tier.watermark)
    own = [outcome for outcome in outcomes if outcome.claim.folder is not None]
    of_paper = [outcome for outcome in outcomes if outcome.claim.folder is None]
    said = [text for text in (*summary(of_paper), about(of_paper, tier.reference)) if text]
    blocks += _section("Claims", of_paper, (), said)
    if own:
        folders = dict.fromkeys(own_mark(outcome.claim.folder) for outcome in own)
        blocks += _section("Own claims", own, list(folders))
    blocks += [load_paper().noise_sources] if tier.reference else []
    return "\n\n".join(blocks) + "\n"


def _section(
    title: str, outcomes: Sequence[Outcome], marked: Sequence[str] = (), said: Sequence[str] = ()
) -> list[str]:
    counts = {word: sum(outcome.verdict == word for outcome in outcomes) for word in VERDICTS}
    summary = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    blocks = [f"# {title}", *marked, f"{summary}.", *said]
    for outcome in outcomes:
        claim = outcome.claim
        lines = [f"**{outcome.verdict}** ({claim.name}, {claim.place or claim.folder})", f"> {claim.sentence}"]
        lines += [f"{claim.reading}"] if claim.reading else []
        lines += ["\n".join(f"- {_comparison(part)}" for part in outcome.parts)] if outcome.parts else []
        lines += [f"{outcome.needs[0].upper()}{outcome.needs[1:]}."] if outcome.needs else []
        if outcome.adjusted is not None and outcome.verdict in DECIDED:
            lines.append(f"p {p_value(outcome.adjusted)} after Holm's correction for all claims.")
        lines += ["\n".join(f"- {remark}" for remark in outcome.remarks)] if outcome.remarks else []
        blocks += lines
    return blocks


def _comparison(part: Judged) -> str:
    c = part.comparison
    margin = f", claimed above {signed(c.margin, c.digits)}" if c.margin else ""
    paper = "" if c.paper is None else f", the paper {signed(c.paper, c.digits)}"
    ours = MISSING if part.estimate is None else signed(part.estimate.mean, c.digits + 1)
    return f"{part.verdict}: {c.label}, {c.unit} {ours}{margin}{paper}; {part.sentence}."


def claims_csv(outcomes: Sequence[Outcome], tier: Tier) -> str:
    """Return all comparisons as CSV; claims on networks have a line without a comparison.

    Estimates have ten digits: those after them depend on the threads of the linear algebra.
    """
    stream = io.StringIO()
    for text in (tier.watermark or "").splitlines():
        stream.write(f"# {text}\n")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for outcome in outcomes:
        head, remarks = (
            [outcome.claim.name, outcome.claim.place or outcome.claim.folder, outcome.verdict],
            " ".join(outcome.remarks),
        )
        if not outcome.parts:
            writer.writerow([*head, *[""] * (len(CSV_COLUMNS) - 4), remarks])
        for part in outcome.parts:
            c, e = part.comparison, part.estimate
            values = c.difference.values
            seeds, differences = (" ".join(map(str, items)) for items in (values, values.values()))
            runs = " ".join(map(str, e.seeds)) if e else ""
            numbers: list[float | str | None] = [""] * 9
            if e is not None:
                quantities = (e.mean, e.error, e.seed_error, e.image_error, e.freedom, e.low, e.high, e.p)
                numbers = [*map(_ten_digits, quantities), e.noise]
            fields = [c.label, c.unit, c.margin, c.paper, runs, seeds, differences, *numbers, part.verdict]
            writer.writerow([*head, *fields, _ten_digits(outcome.adjusted), outcome.needs, remarks])
    return stream.getvalue()


def _ten_digits(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.10g}")
