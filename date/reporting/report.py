"""The report of a tier: tables, figures and one page, made again from sealed results alone, byte for byte.

``<reports>/<tier>/`` gets ``tables/table01.md``, ``.csv`` and ``.tex`` and so on, ``figures/figure3.svg``, ``.png`` and
``.pdf`` and so on, ``tables.md`` and ``figures.md`` with all of them, ``claims.md`` and ``claims.csv``, ``seeds.md``,
``ledger.md`` and ``ledger.csv``, ``latency.md`` where latency was measured, and ``index.html``, a page that needs
neither network nor other files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from date.catalogue import Catalogue, Tier, load, load_tier
from date.catalogue.settings import Settings, load_settings
from date.errors import UserError, unknown_name
from date.files import replace_text
from date.identity.code import module_digests
from date.identity.config import resolve
from date.identity.digests import config_digest
from date.reporting.claim_formats import claims_csv, claims_markdown
from date.reporting.claims import Outcome, judge_all
from date.reporting.formats import comma_separated, latex, markdown, marks
from date.reporting.latency import latency_markdown
from date.reporting.ledger import ledger, ledger_csv, ledger_markdown
from date.reporting.page import NOTHING_WRONG, page
from date.reporting.rendering import FigureRenderer, RenderedFigure, figure_names
from date.reporting.scores import Scores, load_scores
from date.reporting.seeds import SeedAudit, audit_seeds, configured_seeds, failures
from date.reporting.several import begun
from date.reporting.tables import FilledTable, fill
from date.results import RunResult, load_latency, load_results

TABLE_FORMATS: dict[str, Callable[[FilledTable], str]] = {"md": markdown, "csv": comma_separated, "tex": latex}


@dataclass(frozen=True)
class Report:
    """The sources of a tier's report, and its folder."""

    catalogue: Catalogue
    tier: Tier
    results: list[RunResult]
    scores: Scores
    audit: SeedAudit
    chosen: list[str]
    """The trainings that the settings choose."""
    folder: Path

    def tables(self, names: Sequence[str]) -> list[FilledTable]:
        """Write tables in every format and return them."""
        filled = [fill(self.catalogue.tables[name], self.tier, self.scores, self.catalogue) for name in names]
        for table in filled:
            for suffix, write in TABLE_FORMATS.items():
                replace_text(self.folder / "tables" / f"{table.table.name}.{suffix}", write(table))
        return filled

    def all_tables(self) -> list[FilledTable]:
        """Write all tables, and ``tables.md`` with all of them."""
        filled = self.tables(list(self.catalogue.tables))
        replace_text(self.folder / "tables.md", "\n".join(map(markdown, filled)))
        return filled

    def claims(self) -> list[Outcome]:
        """Judge all claims."""
        return judge_all(self.scores, self.results, self.tier, self.catalogue, self.audit)

    def figure(self, name: str) -> RenderedFigure:
        """Write a figure in every format."""
        folder = self.folder / "figures"
        return FigureRenderer(self.catalogue, self.tier, self.results, self.scores, folder).render(name)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[Callable[[], list[RenderedFigure]]]:
        """Begin to write all figures; yield a function that waits for them and writes ``figures.md``."""
        with begun(self.figure, figure_names(self.catalogue)) as drawn:

            def listed() -> list[RenderedFigure]:
                figures = drawn()
                text = "\n\n".join([*marks(self.tier.watermark), *(figure.markdown for figure in figures)])
                replace_text(self.folder / "figures.md", text + "\n")
                return figures

            yield listed

    def all_figures(self) -> list[RenderedFigure]:
        """Write all figures, and ``figures.md`` with all of them."""
        with self.drawing() as drawn:
            return drawn()


COLLECTIONS: dict[str, Callable[[Report], Any]] = {"tables": Report.all_tables, "figures": Report.all_figures}
"""Names that stand for all tables or all figures."""


def write_report(
    tier_name: str,
    results_dir: Path,
    reports_dir: Path,
    only: Sequence[str] = (),
    settings: Settings | None = None,
    status: Path | None = None,
) -> Path:
    """Make tables, figures and page of a tier from its sealed results.

    Args:
        tier_name: a tier's name, or the path of its YAML file.
        results_dir: the folder that holds ``<tier>/<training>/seed<N>/`` and ``complexity.json``.
        reports_dir: the folder that gets ``<tier>/``.
        only: names of tables, figures or sheets of pictures, or ``tables`` or ``figures`` for all of them, to make
            nothing else.
        settings: whose seeds count as configured; by default those of ``experiments/config.yaml``.
        status: a file with what ``python -m date status --json`` printed, to say why runs have no result.

    Returns:
        The path of the page, or of the last file of ``only``.

    Raises:
        UserError: an unknown name, or a tier without results.
    """
    catalogue, tier = load(), load_tier(tier_name)
    valid = [*COLLECTIONS, *catalogue.tables, *figure_names(catalogue)]
    for name in only:
        if name not in valid:
            raise unknown_name("table or figure", name, valid)
    results = [run for run in load_results(results_dir, tier.name) if run.training in catalogue.trainings]
    _check_own(results, catalogue, tier)
    networks_alone = only and all(name in catalogue.tables and not catalogue.tables[name].evaluations for name in only)
    if not results and not networks_alone:
        raise UserError(
            f"tier {tier.name!r} has no results in {results_dir / tier.name}; make them with "
            f"`snakemake --profile workflow/profiles/local all --config tier={tier_name}`."
        )
    settings = settings or load_settings()
    chosen = [training.name for training in catalogue.chosen(tier, settings.trainings)]
    failed = None if status is None else failures(status, tier.name, tier.option)
    audit = audit_seeds(results, results_dir, tier.name, configured_seeds(catalogue, settings, chosen), failed)
    scores = load_scores(audit.kept, results_dir, tier.name, catalogue, load_latency(results_dir, tier.name))
    report = Report(catalogue, tier, audit.kept, scores, audit, chosen, reports_dir / tier.name)
    if not only:
        return _whole(report, results_dir)
    return [_part(report, name) for name in only][-1]


def _part(report: Report, name: str) -> Path:
    """Write one table, figure or sheet of pictures, or all tables or figures; return the file that shows it.

    Raises:
        UserError: a figure has nothing to show.
    """
    if name in COLLECTIONS:
        COLLECTIONS[name](report)
        return report.folder / f"{name}.md"
    if name in report.catalogue.tables:
        report.tables([name])
        return report.folder / "tables" / f"{name}.md"
    figure = report.figure(name).on_page
    if figure.svg is None:
        why = " ".join(figure.notes) or f"None of its trainings has results at tier {report.tier.name!r}."
        raise UserError(f"{name} has nothing to show. {why} Train or evaluate them first.")
    return report.folder / "figures" / f"{name}.svg"


def _check_own(results: Sequence[RunResult], catalogue: Catalogue, tier: Tier) -> None:
    """Raise a `UserError` for results of a training of the same name in another folder, which differs from this one."""
    for run in results:
        training, recorded = catalogue.trainings[run.training], run.provenance.get("experiments")
        if recorded is None or training.folder is None or training.folder in recorded:
            continue
        config = config_digest(resolve(training, tier, run.seed, None))
        if (config, module_digests(training.modules)) != (
            run.provenance.get("config_sha256"),
            run.provenance.get("modules", {}),
        ):
            raise UserError(
                f"the results of {run.training} with seed {run.seed} are of the experiments in "
                f"{' and '.join(recorded)} and not of {training.folder}, which has another training of that name; "
                "rename one of them."
            )


def _whole(report: Report, results_dir: Path) -> Path:
    with report.drawing() as drawn:
        return _with_figures(report, results_dir, drawn)


def _with_figures(report: Report, results_dir: Path, drawn: Callable[[], list[RenderedFigure]]) -> Path:
    """Write everything else while the figures are drawn, then the page."""
    tables, outcomes = report.all_tables(), report.claims()
    replace_text(report.folder / "claims.md", claims_markdown(outcomes, report.tier))
    replace_text(report.folder / "claims.csv", claims_csv(outcomes, report.tier))
    entries = ledger(report.catalogue, report.tier, report.results)
    replace_text(report.folder / "ledger.md", ledger_markdown(entries, report.tier))
    replace_text(report.folder / "ledger.csv", ledger_csv(report.catalogue, entries, report.tier))
    replace_text(report.folder / "seeds.md", _seeds_markdown(report.audit, report.tier))
    if report.scores.latency is not None:
        replace_text(report.folder / "latency.md", latency_markdown(report.scores.latency, report.tier))
    text = page(
        report.catalogue,
        report.tier,
        report.results,
        results_dir,
        tables,
        [figure.on_page for figure in drawn()],
        outcomes,
        entries,
        report.audit,
        report.chosen,
        report.scores.latency,
    )
    replace_text(report.folder / "index.html", text)
    return report.folder / "index.html"


def _seeds_markdown(audit: SeedAudit, tier: Tier) -> str:
    """Return what is wrong with the seeds of the results."""
    said = "\n".join(f"- {sentence}" for sentence in audit.sentences)
    return "\n\n".join([*marks(tier.watermark), "# Seeds", said or NOTHING_WRONG]) + "\n"


def report_page(reports_dir: Path, tier_name: str) -> Path:
    """Return the path of the page of a tier that was made before.

    Raises:
        UserError: there is none.
    """
    tier = load_tier(tier_name)
    page = reports_dir / tier.name / "index.html"
    if not page.exists():
        raise UserError(f"{page} has not been made yet; run: python -m date report --tier {tier.option}")
    return page
