"""Snakemake on a copy of the project: the whole DAG at smoke, then what does and what doesn't make it run again."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from date.catalogue import ROOT, load_tier
from tests.support.dag import run_forked

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
PARTS = ("Snakefile", "pyproject.toml", "date", "experiments", "slurm", "workflow")
TRAININGS = load_tier("smoke").trainings


def snakemake(folder: Path, *arguments: str, check: bool = True, **variables: str) -> str:
    """Run Snakemake in a copy of the project, with environment variables of its own, and return what it said.

    Where ``HOME`` is among them, it runs as somebody with another umask, too. What works nothing (dry runs, lists) runs in
    a fork that has Snakemake imported, unless it has variables; all else is the command itself.
    """
    environment = {k: v for k, v in os.environ.items() if k != "DATE_DATA_ROOT"} | {"OMP_NUM_THREADS": "1"} | variables
    if not variables and {"-n", "--list-target-rules"} & set(arguments):
        done = run_forked(arguments, folder, environment)
    else:
        done = subprocess.run(
            [SNAKEMAKE, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            umask=0o077 if "HOME" in variables else -1,
        )
    output = done.stdout + done.stderr
    assert not check or done.returncode == 0, output
    assert check or done.returncode != 0, output
    return output


def local(folder: Path, *arguments: str, check: bool = True, **variables: str) -> str:
    words = ["--profile", "workflow/profiles/local", *arguments, "--config", "tier=smoke", "--", "all"]
    return snakemake(folder, *words, check=check, **variables)


def jobs(output: str) -> Counter[str]:
    """Return the jobs of a dry run by rule."""
    return Counter({rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)})


def copy_project(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, in a folder with a space in its name, after ``snakemake all`` at smoke by somebody else."""
    folder = copy_project(tmp_path_factory.mktemp("a clone"))
    (folder / "README.md").write_text("what it is\n")
    local(folder, **elsewhere(tmp_path_factory.mktemp("their home")))
    return folder


def elsewhere(home: Path) -> dict[str, str]:
    """Return the environment of another user in another time zone, whose locale is not UTF-8."""
    variables = {"LC_ALL": "C", "LANG": "C", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7"}
    return {"HOME": str(home), "USER": "somebody", "LOGNAME": "somebody", "XDG_CACHE_HOME": "", **variables}


@pytest.mark.parametrize(("target", "status"), [("table05", 0), ("table5", 1)])
def test_a_dry_run_in_a_fork_says_what_the_command_says(tmp_path: Path, target: str, status: int) -> None:
    folder, words = copy_project(tmp_path), ("-c1", "-n", "--config", "tier=smoke", "--", target)
    forked = run_forked(words, folder, dict(os.environ))
    alone = subprocess.run([SNAKEMAKE, *words], cwd=folder, capture_output=True, text=True)
    assert forked.returncode == alone.returncode == status, forked.stderr
    assert said(forked.stdout) == said(alone.stdout)
    assert said(forked.stderr) == said(alone.stderr)


def said(output: str) -> list[str]:
    """Return the lines without what differs from one run of the command to the next: times, an id, the jobs' order."""
    varying = r"Date: .*|Workflow ID: .*|^\[\w{3} \w{3} .*\]$|^Job \d+|(?<=jobid: )\d+"
    lines = re.sub(varying, "", output, flags=re.MULTILINE).splitlines()
    return sorted(" ".join(sorted(re.split(r"[,;\s]+", line))) for line in lines)


def test_the_dag_before_anything_is_done(tmp_path: Path) -> None:
    output = local(copy_project(tmp_path), "-n")
    expected = {"prepare_data": 1, "train": len(TRAININGS), "evaluate": len(TRAININGS)}
    expected |= {"count_complexity": 1, "make_report": 1, "all": 1}
    assert {rule: n for rule, n in jobs(output).items() if rule != "total"} == expected


@pytest.mark.parametrize(("chosen", "count"), [((), 40), (('trainings=["*-coco-*"]',), 35)], ids=["all", "coco"])
def test_the_papers_command_plans_every_training_once_without_data(
    tmp_path: Path, chosen: tuple[str, ...], count: int
) -> None:
    settings = ("tier=paper", *chosen)
    output = snakemake(copy_project(tmp_path), "--profile", "slurm", "-n", "--config", *settings, "--", "all")
    assert jobs(output)["train"] == count
    output = snakemake(copy_project(tmp_path / "b"), "-c1", "-n", "--config", *settings, "seeds=[0,1]", "--", "all")
    assert jobs(output)["train"] == 2 * count


@pytest.mark.parametrize("variant", [(), ("--profile", "workflow/profiles/slurm-gres")], ids=["gpus", "gres"])
def test_a_setting_leaves_the_profiles_tier(tmp_path: Path, variant: tuple[str, ...]) -> None:
    words = ("--profile", "slurm", *variant, "-n", "--config", "trainings=[date_f-r50-coco-12e]", "seeds=[0,1]")
    output = snakemake(copy_project(tmp_path), *words, "--", "all")
    assert jobs(output)["train"] == 2
    assert "results/paper/date_f-r50-coco-12e/seed1" in output


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("tier=smokey", "unknown tier 'smokey'; did you mean 'smoke'?"),
        ("teir=smoke", "unknown key 'teir'; did you mean 'tier'?"),
        ("seeds=[1,1]", "names a seed twice"),
        ("trainings=[onenet]", "unknown training or pattern 'onenet'; did you mean 'onenet-r50-coco-12e'?"),
    ],
)
def test_mistakes_stop_before_any_job(tmp_path: Path, setting: str, sentence: str) -> None:
    output = snakemake(copy_project(tmp_path), "-c1", "--config", setting, "--", "all", check=False)
    assert sentence in output
    assert "Traceback" not in output


@pytest.mark.parametrize("profile", ["slurm", "workflow/profiles/local"])
def test_what_is_missing_is_reported_all_at_once_before_any_job(tmp_path: Path, profile: str) -> None:
    """Data and weights, of all datasets; on Slurm nothing is submitted (here is none that anything could go to)."""
    folder = copy_project(tmp_path)
    words = ("--profile", profile, "--config", "tier=paper", 'trainings=["*"]', "--", "all")
    output = snakemake(folder, *words, check=False)
    needed = [
        "'coco2017'",
        "'crowdhuman'",
        "resnet50_caffe-788b5fa3",
        "resnet101_caffe-3ad79236",
        "resnet50_msra-5891d200",
    ]
    listed = output.split("no job was started, since this would stop the work:")[1].splitlines()[1:6]
    assert all(sum(name in line for line in listed) == 1 for name in needed), listed
    for place in ("https://cocodataset.org", "https://www.crowdhuman.org", "https://download.openmmlab.com"):
        assert place in output
    assert "Traceback" not in output
    assert not any((folder / name).exists() for name in ("results", "logs", "runs", "data"))
    assert not list(folder.glob(".snakemake/slurm_logs/*"))


@pytest.mark.parametrize("profile", ["slurm", "workflow/profiles/local"])
def test_a_home_that_can_not_be_written_is_not_needed(tmp_path: Path, profile: str) -> None:
    words = ("--profile", profile, "-n", "--config", "tier=smoke", "--", "results/smoke/data/scenes-smoke.json")
    output = snakemake(copy_project(tmp_path), *words, HOME="/dev/null", XDG_CACHE_HOME="")
    assert "prepare_data" in output


def test_only_what_is_asked_for_is_looked_for(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    output = snakemake(folder, "-c1", "--config", "tier=paper", "--", "onenet-r50-crowdhuman-30k", check=False)
    assert "'crowdhuman' is not complete" in output and "resnet50_caffe-788b5fa3" in output
    assert "coco2017" not in output and "resnet101" not in output


@pytest.mark.slow
def test_after_sigkill_of_snakemake_the_same_command_finishes_and_trains_nothing_twice(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "a clone")
    tier = tmp_path / "longer.yaml"
    tier.write_text("extends: smoke\nepoch_scale: 9\n")
    words = ["--profile", "workflow/profiles/local", "--config", f"tier={tier}", f"trainings=[{TRAININGS[1]}]"]
    target = f"results/longer/{TRAININGS[1]}/seed0/provenance.json"
    with (tmp_path / "said").open("w") as said:
        killed = subprocess.Popen([SNAKEMAKE, *words, "--", target], cwd=folder, stdout=said, stderr=said)
    while not (leases := list(folder.glob("runs/.work/*/lease.json"))):
        assert killed.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.1)
    trainer = json.loads(leases[0].read_text())["pid"]
    killed.kill()
    killed.wait()
    output = snakemake(folder, *words, "--", target)
    assert f"is being done by process {trainer} on" in output
    (segment,) = json.loads((folder / target).read_text())["segments"]
    assert (segment["pid"], segment["reason"]) == (trainer, "finished")


def check_pictures(clone: Path, training: str) -> None:
    """Compare a run's pictures with the annotations: the objects, and points that lie where an assignment can put them."""
    record = json.loads((clone / f"results/smoke/{training}/seed0/pictures.json").read_text())
    (file,) = clone.glob("data/scenes-smoke-*/annotations/instances_val.json")
    annotations = json.loads(file.read_text())["annotations"]
    assert len(record["images"]) == 3
    for image in record["images"]:
        own = [a["bbox"] for a in annotations if a["image_id"] == image["id"] and not a["iscrowd"]]
        corners = [[x, y, x + w, y + h] for x, y, w, h in own]
        np.testing.assert_allclose([box[:4] for box in image["objects"]], corners, atol=0.01)
        for name, branch in image["branches"].items():
            if name == "o2o":
                assert sorted(index for *_, index in branch["positives"]) == list(range(len(own))), "a point each"
            elif "retinanet" not in training:  # whose anchors may have their centres outside of an object
                for x, y, _, index in branch["positives"]:
                    x1, y1, x2, y2, _ = image["objects"][index]
                    assert x1 < x < x2 and y1 < y < y2
            assert branch["positives"]


@pytest.mark.slow
def test_results_and_report_are_there(finished: Path) -> None:
    for training in TRAININGS:
        folder = finished / "results" / "smoke" / training / "seed0"
        assert {p.name for p in folder.iterdir()} == {
            "provenance.json",
            "metrics.jsonl",
            "evaluation.json",
            "detections.npz",
            "pictures.json",
        }
        check_pictures(finished, training)
    report = finished / "reports" / "smoke"
    for file in (
        "index.html",
        "tables/table01.md",
        "tables/table01.csv",
        "tables/table09.tex",
        "tables.md",
        "figures/convergence.svg",
        "figures/convergence.png",
        "figures/figure1.pdf",
        "figures/pictures_date.svg",
    ):
        assert (report / file).stat().st_size > 500, file
    assert not list((finished / "runs" / ".work").glob("smoke-*/"))


@pytest.mark.slow
def test_snakemakes_own_report_has_the_page(finished: Path, tmp_path: Path) -> None:
    snakemake(finished, "--report", str(tmp_path / "report.html"), "--config", "tier=smoke")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    held = re.search(r'<script id="results">\s*var results = (\{.*?\});?\s*</script>', text, re.DOTALL)
    assert held is not None
    page = json.loads(held[1])["reports/smoke/index.html"]
    assert (page["mime_type"], page["labels"]) == ("text/html", {"tier": "smoke"})
    embedded = base64.b64decode(page["data_uri"].split("base64,", 1)[1])
    assert embedded == (finished / "reports" / "smoke" / "index.html").read_bytes()
    assert f'id="run-{TRAININGS[0]}-seed0"' in embedded.decode(), "the ledger that the page's links lead to is in it"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rule", "trained"), [("table05", "make_table", 4), ("figure5", "make_figure", 13)])
def test_what_the_report_made_of_fewer_results_is_not_done(finished: Path, name: str, rule: str, trained: int) -> None:
    assert next((finished / "reports" / "smoke").glob(f"*/{name}.*"))
    planned = jobs(snakemake(finished, "-c1", "-n", "--config", "tier=smoke", "--", name))
    assert (planned["train"], planned["evaluate"], planned[rule]) == (trained, trained, 1)


@pytest.mark.slow
def test_the_second_time_there_is_nothing_to_do(finished: Path) -> None:
    assert "Nothing to be done" in local(finished)


@pytest.mark.slow
def test_only_what_matters_makes_trainings_run_again(finished: Path) -> None:
    said = ""

    def spoiled(file: str, old: str, new: str) -> Counter[str]:
        nonlocal said
        path = finished / file
        before, times = path.read_text(), path.stat()
        assert old in before, f"{file} no longer has {old!r}"
        path.write_text(before.replace(old, new))
        said = local(finished, "-n")
        path.write_text(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        return jobs(said)

    assert not spoiled("date/models/assigners.py", "# the smallest first,", "# smallest first,")
    assert not spoiled("date/models/assigners.py", '"""How good a point', '"""Say how good a point')
    assert not spoiled("date/reporting/report.py", "from __future__", "import this\nfrom __future__")
    assert not spoiled("README.md", "what it is", "what it was")
    assert spoiled("date/models/assigners.py", "center_radius: float = 1.5", "center_radius: float = 1.6")["train"] == 4
    changed = re.findall(r"before: '(code of .*?)' now: '(code of .*?)' *$", said, re.MULTILINE)
    assert len(changed) == 4, said
    for before, now in changed:
        assert before.split()[2] == now.split()[2] == "assigners" and before != now
    lambdas = spoiled(
        "experiments/trainings.yaml", "o2m: fcos}\n  schedule: 12e", "o2m: fcos, lambda_o2m: 2}\n  schedule: 12e"
    )
    assert lambdas["train"] == 1
    assert re.search(r"before: 'model.bbox_head [0-9a-f]{8}' now: 'model.bbox_head [0-9a-f]{8}'", said)
    assert spoiled("experiments/tiers/smoke.yaml", "lr: 2.0e-3", "lr: 1.0e-3")["train"] == 4
    assert len(re.findall(r"before: 'optim_wrapper .*' now: 'optim_wrapper ", said)) == 4


@pytest.mark.slow
def test_another_user_and_time_zone_change_nothing(finished: Path, tmp_path: Path) -> None:
    assert "Nothing to be done" in local(finished, **elsewhere(tmp_path))
    assert "Nothing to be done" in local(finished, TZ="America/Los_Angeles", LC_ALL="C.UTF-8", PYTHONHASHSEED="0")


@pytest.mark.slow
def test_moving_the_clone_changes_nothing(finished: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved, and 'quoted'"
    shutil.copytree(finished, moved, symlinks=True)  # copy2 keeps the times, as moving does
    assert "Nothing to be done" in local(moved)
    assert not jobs(local(moved, "-n"))


@pytest.mark.slow
def test_seeds_add_runs_and_keep_the_old(finished: Path) -> None:
    output = snakemake(finished, "-c1", "-n", "--config", "tier=smoke", "seeds=[0,1]", "--", "all")
    assert jobs(output)["train"] == len(TRAININGS)
