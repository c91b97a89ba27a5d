"""The report of a tier: tables, figures and one page, made again from sealed results alone, byte for byte.

``<reports>/<tier>/`` gets ``tables/table01.md``, ``.csv`` and ``.tex`` and so on, ``figures/figure3.svg``, ``.png`` and
``.pdf`` and so on, ``tables.md`` and ``figures.md`` with all of them, ``claims.md`` and ``claims.csv``, ``seeds.md``,
``ledger.md`` and ``ledger.csv``, and ``index.html``, a page that needs neither network nor other files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from date.catalogue import Catalogue, Tier, load, load_tier
from date.config import Settings, load_settings
from date.errors import UserError, unknown_name
from date.files import replace_text
from date.reporting.claim_formats import claims_csv, claims_markdown
from date.reporting.claims import Outcome, judge
from date.reporting.figures import Drawing, Drawn, drawings, write_drawing
from date.reporting.formats import comma_separated, latex, markdown
from date.reporting.ledger import ledger, ledger_csv, ledger_markdown
from date.reporting.page import NOTHING_WRONG, page, page_figure, page_trade_off
from date.reporting.scores import Scores, number
from date.reporting.seeds import SeedAudit, audit_seeds, configured_seeds, failures
from date.reporting.tables import FilledTable, fill
from date.reporting.tradeoff import TradeOffDrawing, trade_offs, values_markdown, write_trade_off
from date.results import RunResult, load_annotation_recalls, load_complexity, load_results

TABLE_FORMATS: dict[str, Callable[[FilledTable], str]] = {"md": markdown, "csv": comma_separated, "tex": latex}


@dataclass(frozen=True)
class Report:
    """What a tier's report is made from, and where it goes."""

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
        judged = self.catalogue.claims.values()
        return [judge(c, self.scores, self.results, self.tier, self.catalogue, self.audit) for c in judged]

    def figure(self, drawing: Drawing) -> Drawn:
        """Write a figure in every format and return the curves of its panels, none where nothing has results."""
        return write_drawing(drawing, self.tier, self.results, self.folder / "figures" / drawing.name)

    def trade_offs(self, names: Sequence[str] | None = None) -> list[TradeOffDrawing]:
        """Write the figures of trade-offs, by default all, in every format."""
        found = [t for t in trade_offs(self.catalogue, self.scores) if names is None or t.name in names]
        for drawing in found:
            write_trade_off(drawing, self.tier, self.folder / "figures" / drawing.name)
        return found

    def all_figures(self) -> tuple[list[tuple[Drawing, Drawn]], list[TradeOffDrawing]]:
        """Write all figures, and ``figures.md`` with all of them."""
        drawn = [(drawing, self.figure(drawing)) for drawing in drawings(self.catalogue)]
        traded = self.trade_offs()
        text = _figures_markdown(drawn, self.tier) + "".join(map(_trade_off_markdown, traded))
        replace_text(self.folder / "figures.md", text)
        return drawn, traded


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
        only: names of tables or figures, or ``tables`` or ``figures`` for all of them, to make nothing else.
        settings: whose seeds count as configured; by default those of ``experiments/config.yaml``.
        status: a file with what ``python -m date status --json`` printed, to say why runs have no result.

    Returns:
        The path of the page, or of the last file of ``only``.

    Raises:
        UserError: an unknown name, or a tier without results.
    """
    catalogue, tier = load(), load_tier(tier_name)
    makers = {"tables": Report.all_tables, "figures": Report.all_figures}
    drawn_names = {drawing.name: drawing for drawing in drawings(catalogue)}
    traded_names = [figure.name for figure in catalogue.figures.values() if figure.trade_off]
    valid = [*makers, *catalogue.tables, *drawn_names, *traded_names]
    for name in only:
        if name not in valid:
            raise unknown_name("table or figure", name, valid)
    results = load_results(results_dir, tier.name)
    networks_alone = only and all(name in catalogue.tables and not catalogue.tables[name].evaluations for name in only)
    if not results and not networks_alone:
        raise UserError(
            f"tier {tier.name!r} has no results in {results_dir / tier.name}; make them with "
            f"`snakemake --profile workflow/profiles/local all --config tier={tier_name}`."
        )
    settings = settings or load_settings()
    chosen = [training.name for training in catalogue.select(settings.trainings or tier.trainings)]
    failed = None if status is None else failures(status, tier.name)
    audit = audit_seeds(results, results_dir, tier.name, configured_seeds(catalogue, settings, chosen), failed)
    ious = {name: entry.iou for name, entry in catalogue.annotations.items()}
    recalls = load_annotation_recalls(results_dir, tier.name)
    scores = Scores(audit.kept, load_complexity(results_dir), recalls, ious)
    report = Report(catalogue, tier, audit.kept, scores, audit, chosen, reports_dir / tier.name)
    if not only:
        return _whole(report, results_dir)
    for name in only:
        if name in makers:
            makers[name](report)
            made = report.folder / f"{name}.md"
        elif name in catalogue.tables:
            report.tables([name])
            made = report.folder / "tables" / f"{name}.md"
        else:
            made = report.folder / "figures" / f"{name}.svg"
            there = report.figure(drawn_names[name]) if name in drawn_names else report.trade_offs([name])[0].shown
            if not there:
                raise UserError(f"none of the trainings of {name} has results at tier {tier.name!r}; train them first.")
    return made


def _whole(report: Report, results_dir: Path) -> Path:
    tables, (drawn, traded) = report.all_tables(), report.all_figures()
    figures = [
        page_figure(drawing, panels, report.folder / "figures" / f"{drawing.name}.svg", report.tier)
        for drawing, panels in drawn
    ]
    figures += [
        page_trade_off(drawing, report.folder / "figures" / f"{drawing.name}.svg", report.tier) for drawing in traded
    ]
    outcomes = report.claims()
    replace_text(report.folder / "claims.md", claims_markdown(outcomes, report.tier))
    replace_text(report.folder / "claims.csv", claims_csv(outcomes, report.tier))
    entries = ledger(report.catalogue, report.tier, report.results)
    replace_text(report.folder / "ledger.md", ledger_markdown(entries, report.tier))
    replace_text(report.folder / "ledger.csv", ledger_csv(report.catalogue, entries, report.tier))
    replace_text(report.folder / "seeds.md", _seeds_markdown(report.audit, report.tier))
    text = page(
        report.catalogue,
        report.tier,
        report.results,
        results_dir,
        tables,
        figures,
        outcomes,
        entries,
        report.audit,
        report.chosen,
    )
    replace_text(report.folder / "index.html", text)
    return report.folder / "index.html"


def _figures_markdown(drawn: Sequence[tuple[Drawing, Drawn]], tier: Tier) -> str:
    """Return a page with all figures, their final values, and the paper's where it gives them."""
    blocks = [f"> **{text}**" for text in (tier.watermark or "").splitlines()]
    for drawing, panels in drawn:
        blocks += [f"# {drawing.title}", drawing.caption]
        if not panels:
            blocks.append("No result yet.")
            continue
        blocks.append(f"![{drawing.title}](figures/{drawing.name}.svg)")
        paper = {curve.label: curve for curve in drawing.curves}
        ends = []
        for panel, curves in zip(drawing.panels, panels.panels, strict=True):
            for curve in curves:
                printed = paper[curve.label].end if panel.metric == "AP" else None
                beside = f" (the paper: {number(printed)}, {paper[curve.label].place})" if printed is not None else ""
                ends.append(
                    f"- {panel.label}, {curve.label}: {number(curve.mean[-1], curve.digits)} at the end{beside}"
                )
        blocks.append("\n".join(ends))
    return "\n\n".join(blocks) + "\n"


def _seeds_markdown(audit: SeedAudit, tier: Tier) -> str:
    """Return what is wrong with the seeds of the results."""
    blocks = [f"> **{text}**" for text in (tier.watermark or "").splitlines()]
    said = "\n".join(f"- {sentence}" for sentence in audit.sentences)
    return "\n\n".join([*blocks, "# Seeds", said or NOTHING_WRONG]) + "\n"


def _trade_off_markdown(drawing: TradeOffDrawing) -> str:
    """Return a figure of a trade-off for the page with all figures: image, notes and all its values."""
    shown = drawing.shown
    image = (
        [f"![{drawing.title}](figures/{drawing.name}.svg)", " ".join(drawing.notes)] if shown else ["No result yet."]
    )
    return "\n" + "\n\n".join([f"# {drawing.title}", drawing.caption, *image, values_markdown(drawing)]) + "\n"


def report_page(reports_dir: Path, tier_name: str) -> Path:
    """Return the path of the page of a tier that was made before.

    Raises:
        UserError: there is none.
    """
    page = reports_dir / load_tier(tier_name).name / "index.html"
    if not page.exists():
        raise UserError(f"{page} has not been made yet; run: python -m date report --tier {tier_name}")
    return page
