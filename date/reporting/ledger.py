"""The ledger: what differs from the paper's setting in each training, what its numbers come from, and who uses it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from date.catalogue import Catalogue, Tier, Training, load_tier
from date.catalogue.publication import load_paper
from date.identity.config import optimisation
from date.reporting.dead_sides import dead_sides
from date.reporting.formats import marks
from date.reporting.scores import MISSING
from date.results import RunResult

NOT_SCALING = {
    "name", "summary", "watermark", "reference", "trainings", "workers", "log_interval", "monitored", "compute",
    "tuned", "fit_pixels",
}  # fmt: skip
"""Keys of a tier that change no number, or that stand in the ledger by themselves."""
TUNING_RULES = "Settings not marked as tuned follow the tier's rules, the same for all trainings."
ADAMW = "AdamW"
OF_ADAMW = ("lr", "backbone lr mult")
"""Changes of a tier that a recipe with another optimiser, DeFCN's, does not take."""
STACK = ("torch", "mmdet", "mmengine", "mmcv")


@dataclass(frozen=True)
class LedgerRun:
    """The source of the numbers of a training with one seed."""

    seed: int
    run: str
    digests: dict[str, str]
    """Identity, weights, config, code and data, in full, where known."""
    segments: list[str]
    """The parts in which it was trained, one line each."""
    remarks: list[str]
    """What makes it less than one run on one machine, and what is wrong with its boxes."""


@dataclass(frozen=True)
class LedgerEntry:
    """A training in the ledger."""

    training: Training
    rows: list[str]
    """The tables' rows and the figures that show it."""
    differences: list[tuple[str, str]]
    """What differs from the paper's setting: the matter, and how."""
    runs: list[LedgerRun]


def ledger(catalogue: Catalogue, tier: Tier, results: Sequence[RunResult]) -> list[LedgerEntry]:
    """Return an entry for each training that has results, in the catalogue's order."""
    entries = []
    for training in catalogue.trainings.values():
        runs = [run for run in results if run.training == training.name]
        if runs:
            differences = _settings(training, tier) + _carried_out(runs)
            entries.append(LedgerEntry(training, used_by(catalogue, training.name), differences, list(map(_run, runs))))
    return entries


def used_by(catalogue: Catalogue, training: str) -> list[str]:
    """Return the rows and figures that rest on a training's checkpoint, e.g. ``table01.4`` and ``figure3``."""
    names = {e.name for e in catalogue.evaluations_of(training)}
    rows = [row.id for table in catalogue.tables.values() for row in table.rows if names & set(row.evaluations)]
    return rows + [name for name, figure in catalogue.drawn.items() if training in figure.trainings]


def tier_changes(tier: Tier) -> list[tuple[str, str]]:
    """Return the settings that a tier changes: the key, its value beside the paper's, and what it was tuned on."""
    paper = load_tier(load_paper().reference_tier).model_dump(mode="json")
    ours = tier.model_dump(mode="json")
    changed = [key for key in paper if key in tier.tuned or (key not in NOT_SCALING and ours[key] != paper[key])]
    tuned = {key: f"; tuned on {' and '.join(networks)}, for all trainings" for key, networks in tier.tuned.items()}
    more = {"pixel_scale": ", more where the boxes need it"} if tier.fit_pixels else {}
    beside = {key: f"{_short(ours[key])}{more.get(key, '')} (the paper: {_short(paper[key])})" for key in changed}
    return [(key.replace("_", " "), text + tuned.get(key, "")) for key, text in beside.items()]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"{k} {_short(v.get('file', v) if isinstance(v, dict) else v)}" for k, v in value.items()]
        return ", ".join(parts) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(training: Training, tier: Tier) -> list[tuple[str, str]]:
    found = [] if training.source == "official" else [("settings inferred", training.why)]
    optimizer, papers = (optimisation(training, t)["optimizer"] for t in (tier, load_tier(load_paper().reference_tier)))
    if optimizer["type"] == ADAMW:
        return found + tier_changes(tier)
    changes = [(matter, how) for matter, how in tier_changes(tier) if matter not in OF_ADAMW]
    if optimizer["lr"] != papers["lr"]:
        changes.append((f"lr of {optimizer['type']}", f"{optimizer['lr']:g} (the paper: {papers['lr']:g})"))
    return found + changes


def _carried_out(runs: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Return what differs in how runs were carried out; what the paper does not state is said beside ours."""
    own = [run.provenance for run in runs if "imported" not in run.provenance]
    found = []
    imported = [run.seed for run in runs if "imported" in run.provenance]
    if imported:
        found.append(("not trained here", f"seed {', '.join(map(str, imported))}: imported, made elsewhere"))
    if not own:
        return found
    versions = _each("; ".join(_stack(p["versions"])) for p in own)
    found.append(("versions", f"{versions} (the paper: {load_paper().stack})"))
    paper = load_paper()
    precision = {p.get("precision") for p in own} - {paper.recipe.precision, None}
    if precision:
        stated = f"the paper: not stated, read as {paper.recipe.precision}"
        found.append(("precision", f"{_each(map(str, precision))} ({stated})"))
    speed = {key for p in own for key, on in (p.get("compute") or {}).items() if on is True}
    if speed:
        found.append(("options of speed", ", ".join(sorted(speed)).replace("_", " ")))
    found.append(("hardware", f"{_each(map(_devices, own))} (the paper: not stated)"))
    processes = {int(p["processes"]) for p in own if p.get("processes") is not None}
    if processes:
        layout = "not stated"
        if paper.released is not None:
            gpus = paper.released.gpus
            layout = f"{gpus} GPUs with {paper.recipe.batch_size // gpus} images each in the released configurations"
        found.append(("processes", f"{_each(map(str, sorted(processes)))} (the paper: {layout})"))
    return found


def _each(values: Any) -> str:
    return " / ".join(dict.fromkeys(values))


def _stack(versions: dict[str, str]) -> list[str]:
    """Return the versions that decide numbers, or all where none of these is named."""
    named = [f"{name} {versions[name]}" for name in STACK if name in versions]
    return named or [f"{name} {version}" for name, version in versions.items()]


def _devices(facts: dict[str, Any]) -> str:
    hardware = facts.get("hardware") or facts
    devices = hardware.get("devices") or []
    names = dict.fromkeys(devices)
    if set(names) == {"cpu"}:
        return f"CPU {hardware.get('processor', '')}".strip()
    return ", ".join(f"{devices.count(name)} x {name}" if devices.count(name) > 1 else name for name in names)


def _run(result: RunResult) -> LedgerRun:
    p = result.provenance
    keys = {
        "run": p.get("run_digest"),
        "weights": p.get("weights_sha256"),
        "config": p.get("config_sha256"),
        "code": p.get("code_sha256"),
        "commit": p.get("commit"),
        "data": p["data"].get("digest"),
    }
    origin = p.get("initialised_from")
    if origin is not None:
        keys["initialised from"] = f"{origin['weights']} {origin['weights_sha256']}"
    digests = {name: value for name, value in keys.items() if value is not None}
    remarks = segment_remarks(p) + [f"{side} side of its boxes dead" for side in dead_sides(result)]
    return LedgerRun(result.seed, p.get("run", result.training), digests, _segments(p), remarks)


def _segments(provenance: dict[str, Any]) -> list[str]:
    lines = []
    for segment in provenance["segments"]:
        words = [f"{segment['began']} to {segment['ended']}"]
        words += [f"from step {segment['from_step']}"] if "from_step" in segment else []
        words += [_devices(segment)] if segment.get("devices") else []
        words += [f"job {segment['job']}"] if segment.get("job") else []
        words += [f"{segment['processes']} processes"] if segment.get("processes", 1) > 1 else []
        lines.append(", ".join([*words, segment["reason"]]))
    return lines


def segment_remarks(provenance: dict[str, Any]) -> list[str]:
    """Return what of a run's segments a reader has to know: how often resumed, mixed GPU models, mixed processes."""
    segments, found = provenance["segments"], []
    if len(segments) > 1:
        found.append(f"resumed {len(segments) - 1}x")
    models = dict.fromkeys(name for s in segments for name in dict.fromkeys(s.get("devices") or ()))
    if len(models) > 1:
        found.append(f"mixed hardware: {', '.join(models)}")
    counts = dict.fromkeys(s["processes"] for s in segments if "processes" in s)
    if len(counts) > 1:
        found.append(f"mixed numbers of processes: {', '.join(map(str, counts))}")
    return found


def ledger_markdown(entries: Sequence[LedgerEntry], tier: Tier) -> str:
    """Return the ledger as Markdown."""
    blocks = marks(tier.watermark)
    blocks += ["# Ledger", "What differs from the paper's setting in each training, and what its numbers come from."]
    blocks += [TUNING_RULES] if tier.watermark else []
    for entry in entries:
        training = entry.training
        blocks.append(f"## {training.name}")
        blocks.append(
            f"{training.label}, settings {training.source}: {training.why} Shown in: {', '.join(entry.rows)}."
        )
        blocks.append("\n".join(f"- {matter}: {how}" for matter, how in entry.differences))
        for run in entry.runs:
            remarks = f" ({'; '.join(run.remarks)})" if run.remarks else ""
            lines = [f"- seed {run.seed}{remarks}: `{run.run}`"]
            lines += [f"  - {name}: `{digest}`" for name, digest in run.digests.items()]
            lines += [f"  - segment: {segment}" for segment in run.segments]
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def ledger_csv(catalogue: Catalogue, entries: Sequence[LedgerEntry], tier: Tier) -> str:
    """Return one line for each row of the tables and each seed: the run that the row's number comes from."""
    by_name = {entry.training.name: entry for entry in entries}
    stream = io.StringIO()
    for text in (tier.watermark or "").splitlines():
        stream.write(f"# {text}\n")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["row", "evaluation", "seed", "run", "weights_sha256", "segments", "remarks", "differences"])
    for table in catalogue.tables.values():
        for row, name in [(r, name) for r in table.rows for name in r.evaluations]:
            entry = by_name.get(catalogue.evaluation(name).training)
            for run in entry.runs if entry else ():
                assert entry is not None
                differs = "; ".join(f"{matter}: {how}" for matter, how in entry.differences)
                weights = run.digests.get("weights", MISSING)
                remarks = "; ".join(run.remarks)
                writer.writerow([row.id, name, run.seed, run.run, weights, len(run.segments), remarks, differs])
    return stream.getvalue()
