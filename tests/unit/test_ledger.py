"""The ledger, from constructed provenances."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from pathlib import Path
from typing import Any

from date.catalogue import load, load_tier
from date.reporting.ledger import ledger, ledger_csv, ledger_markdown, segment_remarks, tier_changes, used_by
from date.reporting.report import write_report
from date.results import load_results
from sealed import add_run, change, coco

DATE_F, FCOS = "date_f-r50-coco-12e", "fcos-r50-coco-12e"


def segment(from_step: int, *devices: str, reason: str = "finished", processes: int = 1) -> dict[str, Any]:
    times = {"began": "2026-01-01T00:00:00Z", "ended": "2026-01-01T01:00:00Z", "seconds": 3600.0}
    return {
        "from_step": from_step,
        "job": "17",
        "devices": list(devices),
        "processes": processes,
        "reason": reason,
    } | times


def test_what_a_tier_changes_is_named_beside_the_papers() -> None:
    changes = dict(tier_changes(load_tier("mini")))
    assert changes["batch size"] == "4 (the paper: 16); tuned on FCOS and OneNet, for all trainings"
    assert changes["lr"] == "0.001 (the paper: 0.0004); tuned on FCOS and OneNet, for all trainings"
    assert changes["datasets"].startswith("coco scenes-mini, crowdhuman crowd-mini (the paper: coco coco2017")
    assert not {"workers", "summary", "name", "pad divisor"} & changes.keys()
    assert tier_changes(load_tier("paper")) == []


def test_what_was_tuned_is_reported_even_where_the_papers_value_came_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: paper\ntuned: {lr: [FCOS], workers: [OneNet]}\n")
    assert tier_changes(load_tier(str(path))) == [
        ("lr", "0.0004 (the paper: 0.0004); tuned on FCOS, for all trainings"),
        ("workers", "8 (the paper: 8); tuned on OneNet, for all trainings"),
    ]


def test_the_ledger_has_the_rate_of_the_optimiser_that_a_recipe_uses(tmp_path: Path) -> None:
    for name in (DATE_F, "defcn-r50-coco-1x"):
        add_run(tmp_path, "mini", name, 0, {"o2o": coco(37.0)})
    of_date, of_defcn = (dict(e.differences) for e in ledger(load(), load_tier("mini"), load_results(tmp_path, "mini")))
    assert of_date["lr"].startswith("0.001 (the paper: 0.0004)") and "lr of SGD" not in of_date
    assert of_defcn["lr of SGD"] == "0.0025 (the paper: 0.01)", "in proportion to the batch"
    assert not {"lr", "backbone lr mult"} & of_defcn.keys()


def test_the_ledger_of_a_run_that_was_moved_between_gpus(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "paper", DATE_F, 0, {"o2o": coco(37.0)})
    gpus = ["NVIDIA A100", "NVIDIA A100"]
    segments = [segment(0, *gpus, reason="killed", processes=2), segment(4000, "NVIDIA H100")]
    hardware = {"devices": ["NVIDIA H100"], "processor": "x86_64", "threads": 8}
    change(folder, segments=segments, hardware=hardware, precision="bf16", processes=1, batch_size=16)
    (entry,) = ledger(load(), load_tier("paper"), load_results(tmp_path, "paper"))
    matters = dict(entry.differences)
    assert matters["precision"] == "bf16 (the paper: not stated, read as fp32)"
    assert matters["hardware"] == "NVIDIA H100 (the paper: not stated)"
    assert matters["versions"].startswith("torch 2.14.1 (the paper: PyTorch and MMDetection")
    assert matters["processes"] == "1 (the paper: 8 GPUs with 2 images each in the released configurations)"
    assert "settings inferred" not in matters, "a released configuration states DATE-F's settings"
    (run,) = entry.runs
    assert run.remarks == [
        "resumed 1x", "mixed hardware: NVIDIA A100, NVIDIA H100", "mixed numbers of processes: 2, 1",
    ]  # fmt: skip
    assert run.segments[0] == (
        "2026-01-01T00:00:00Z to 2026-01-01T01:00:00Z, from step 0, 2 x NVIDIA A100, job 17, 2 processes, killed"
    )
    assert len(run.digests["weights"]) == 64
    assert "table01.4" in entry.rows and "table10.3" in entry.rows and "figure4" in entry.rows
    page = write_report("paper", tmp_path, tmp_path / "reports").read_text()
    assert f'id="ledger-{DATE_F}"' in page and f'href="#ledger-{DATE_F}"' in page
    assert run.digests["weights"] in page


def test_tables_figures_and_claims_link_to_their_runs(tmp_path: Path) -> None:
    for seed in (0, 3):
        add_run(tmp_path, "mini", DATE_F, seed, {"o2o": coco(20.0), "o2m": coco(19.0)})
    page = write_report("mini", tmp_path, tmp_path / "reports").read_text()
    parts = dict(re.findall(r'<section aria-labelledby="(\w+)">(.*?)</section>', page, re.DOTALL))
    rows = re.findall(r"<tr[^>]*>\s*<th scope=\"row\">.*?</tr>", parts["table01"], re.DOTALL)
    runs = [f"#run-{DATE_F}-seed{seed}" for seed in (0, 3)]
    linked = {i: re.findall(r'href="(#[^"]*)"', row) for i, row in enumerate(rows, 1)}
    assert linked == {i: [f"#ledger-{DATE_F}", *runs] if i == 4 else [] for i in range(1, 8)}, "of DATE-F's row alone"
    for name in ("table07", "convergence", "figure5", "claims", "runs"):
        assert set(runs) <= set(re.findall(r'href="(#[^"]*)"', parts[name])), name
    anchored = parts["ledger"].split(f'id="{runs[1][1:]}"')[1]
    assert f"{DATE_F}-3" in anchored.split("</ul>")[0], "run, digests and segments of the seed follow its anchor"
    assert hashlib.sha256(f"{DATE_F}-3".encode()).hexdigest() in anchored.split("</ul>")[0]


def test_inferred_settings_and_starts_from_other_runs(tmp_path: Path) -> None:
    name = "onenet_init-r50-coco-36e"
    folder = add_run(tmp_path, "mini", name, 1, None)
    change(folder, initialised_from={"weights": "fcos-run", "weights_sha256": "ab" * 32})
    (entry,) = ledger(load(), load_tier("mini"), load_results(tmp_path, "mini"))
    assert entry.differences[0] == ("settings inferred", load().training(name).why)
    assert entry.runs[0].digests["initialised from"] == f"fcos-run {'ab' * 32}"
    assert entry.runs[0].remarks == []
    text = ledger_markdown([entry], load_tier("mini"))
    assert text.startswith("> **mini tier") and "- batch size: 4 (the paper: 16)" in text


def test_one_line_a_row_and_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        add_run(tmp_path, "mini", FCOS, seed, {"head": coco(20.0)})
    text = ledger_csv(load(), ledger(load(), load_tier("mini"), load_results(tmp_path, "mini")), load_tier("mini"))
    lines = list(csv.DictReader(io.StringIO(text.split("\n", 1)[1])))
    assert [(line["row"], line["seed"]) for line in lines] == [("table01.2", "0"), ("table01.2", "1")]
    assert len({line["weights_sha256"] for line in lines}) == 2


def test_every_row_of_a_checkpoint_is_in_the_ledger() -> None:
    catalogue = load()
    shown = {row for name in catalogue.trainings for row in used_by(catalogue, name)}
    rows = {row.id for table in catalogue.tables.values() for row in table.rows if row.evaluations}
    assert rows <= shown


def test_a_run_in_one_piece_has_no_remarks() -> None:
    assert segment_remarks({"segments": [segment(0, "cpu")]}) == []


def test_an_import_is_said_to_be_made_elsewhere(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "mini", FCOS, 3, {"head": coco(20.0)})
    imported = {"kind": "detections", "detections": {"head": {"sha256": "ab"}}, "log": None, "source": "x"}
    change(folder, imported=imported, versions=None, hardware=None, segments=[], weights_sha256=None)
    (entry,) = ledger(load(), load_tier("mini"), load_results(tmp_path, "mini"))
    assert ("not trained here", "seed 3: imported, made elsewhere") in entry.differences
    assert "hardware" not in dict(entry.differences)
    assert "weights" not in entry.runs[0].digests and entry.runs[0].segments == []
