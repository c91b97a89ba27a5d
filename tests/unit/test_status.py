"""`date status`: the state of every run, told from what the real writers leave behind; no PyTorch."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from date.catalogue import ROOT, load, load_tier
from date.catalogue.settings import load_settings
from date.cli import _parser, main
from date.errors import UserError
from date.files import replace_text
from date.formatting import format_duration
from date.results import last_evaluation
from date.runs import status as view
from date.runs.overview import Overview
from date.runs.working import NO_NEWS, STATES, RunStatus
from date.training.interruption import Interrupted
from date.training.journal import LOG, STATUS, Journal, begin_segment, read_segments
from date.training.lease import HOLDER, SILENCE, Lease, process_start
from tests.support.runs import MANIFEST, STEPS, carry_out, plan, training

FCOS, ONENET, DATE_F, RETINANET = "fcos-r50-coco-12e", "onenet-r50-coco-12e", "date_f-r50-coco-12e", "retinanet-r50-coco-12e"  # fmt: skip


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def overview(runs: Path, tmp_path: Path) -> Overview:
    return Overview(load_tier("smoke"), [FCOS], lambda training: [0], runs, tmp_path / "results")


def one(overview: Overview) -> RunStatus:
    (status,) = overview.statuses()
    return status


def raising(error: BaseException) -> Callable[[Any], None]:
    def act(lease: Any) -> None:
        raise error

    return act


def under_way(stack: ExitStack, runs: Path, until: int = 12, name: str = FCOS, manifest: str = MANIFEST) -> Path:
    """Start a run in this process, which stays alive until the stack ends; return its working folder."""
    planned = plan(runs, name, manifest=manifest)
    stack.enter_context(Lease(planned.work, "training it"))
    journal = stack.enter_context(Journal(planned.work, planned.title))
    begin_segment(planned.work, {"host": "here", "job": None})
    stack.enter_context(training(planned, journal, until))
    return planned.work


def killed(runs: Path, until: int = 12, name: str = FCOS, manifest: str = MANIFEST, **holder: Any) -> Path:
    """Leave a run as a process does that is killed; `holder` changes what its lease says."""
    with ExitStack() as stack:
        work = under_way(stack, runs, until, name, manifest)
        lease = json.loads((work / HOLDER).read_text())
    (work / HOLDER).write_text(json.dumps(lease | {"started": "1"} | holder))
    return work


def elsewhere(runs: Path, silent: float = 0.0, quiet: float = 0.0, **holder: Any) -> Path:
    """Leave a run as it looks while a process on another machine trains it.

    Args:
        runs: folder of all runs.
        silent: seconds since its last heartbeat.
        quiet: seconds since its last step.
        holder: changes of the lease.
    """
    work = killed(runs, host="node7", boot="other", **holder)
    now = time.time()
    os.utime(work / HOLDER, (now - silent, now - silent))
    os.utime(work / STATUS, (now - quiet, now - quiet))
    return work


def test_nothing_there_is_waiting(overview: Overview) -> None:
    assert one(overview) == RunStatus(FCOS, 0)


def test_a_sealed_run_is_done(overview: Overview, runs: Path) -> None:
    with pytest.raises(Interrupted):
        carry_out(plan(runs), raising(Interrupted("SIGTERM", 12)), until=12)
    carry_out(plan(runs))
    status = one(overview)
    assert (status.state, status.run, status.step, status.steps, status.ap) == ("done", plan(runs).sealed.name, STEPS, STEPS, 12.0)  # fmt: skip
    assert status.host == os.uname().nodename
    assert re.fullmatch(r"\d+ s, resumed 1 time", status.reason)
    assert status.log == str(plan(runs).sealed / LOG)
    assert (status.eta_seconds, status.heard_seconds) == (None, None)


def test_a_run_under_way(overview: Overview, runs: Path) -> None:
    with ExitStack() as stack:
        work = under_way(stack, runs)
        status = one(overview)
        assert (status.state, status.step, status.steps, status.ap, status.reason) == ("running", 10, STEPS, 11.0, ""), "the status file is written now and then"  # fmt: skip
        published = json.loads((work / STATUS).read_text())
        assert status.eta_seconds == published["eta_seconds"] is not None
        assert status.host == os.uname().nodename and status.heard_seconds is not None and status.heard_seconds < 60
        replace_text(work / STATUS, json.dumps(published | {"state": "evaluating"}))
        assert (one(overview).state, one(overview).reason) == ("running", "evaluating")
        long_ago = time.time() - NO_NEWS - 60
        os.utime(work / STATUS, (long_ago, long_ago))
        assert (one(overview).state, one(overview).reason) == (
            "stalled",
            "the process is alive but has made no step for 31 min",
        )


def test_a_process_that_has_written_nothing_yet_is_starting(overview: Overview, runs: Path) -> None:
    with Lease(plan(runs).work, "training it"):
        assert (one(overview).state, one(overview).reason, one(overview).step) == ("running", "starting", None)
    work = killed(runs)
    published = json.loads((work / STATUS).read_text())
    replace_text(
        work / STATUS, json.dumps(published | {"pid": 1, "state": "failed", "reason": "of the process before"})
    )
    (work / HOLDER).unlink()
    with Lease(work, "training it"):
        assert (one(overview).state, one(overview).reason, one(overview).eta_seconds) == ("running", "starting", None)


def test_a_stopped_process_is_stalled(overview: Overview, runs: Path) -> None:
    """By SIGSTOP or Ctrl-Z: it holds the run, and takes no step."""
    with ExitStack() as stack, subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        work = under_way(stack, runs)
        holder = json.loads((work / HOLDER).read_text())
        other = holder | {"pid": process.pid, "started": process_start(process.pid)}
        (work / HOLDER).write_text(json.dumps(other))
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        expected = f"process {process.pid} is stopped; let it go on by `kill -CONT {process.pid}`"
        assert (one(overview).state, one(overview).reason) == ("stalled", expected)
        process.kill()
        (work / HOLDER).write_text(json.dumps(holder))


def test_a_killed_run_is_dead(overview: Overview, runs: Path) -> None:
    work = killed(runs)
    status = one(overview)
    assert (status.state, status.step, status.ap) == ("dead", 10, 11.0)
    assert re.fullmatch(r"killed, last heard \d+ s ago", status.reason)
    assert status.log == str(work / LOG)
    (work / HOLDER).unlink()
    assert one(overview).state == "dead" and one(overview).reason.startswith(
        "the process ended without saving a reason, last heard"
    )


def test_an_interrupted_run_will_be_resumed(overview: Overview, runs: Path) -> None:
    with pytest.raises(Interrupted):
        carry_out(plan(runs), raising(Interrupted("time budget", 12)), until=12)
    status = one(overview)
    assert (status.state, status.reason, status.step, status.steps) == ("interrupted", "time budget", 12, STEPS)
    assert status.host == read_segments(plan(runs).work)[0]["host"]


def test_a_failed_run_tells_why_and_where_its_log_is(overview: Overview, runs: Path) -> None:
    with pytest.raises(UserError):
        carry_out(plan(runs), raising(UserError("the loss is not finite at step 13 (images 4, 7); lower the lr.")), 12)
    status = one(overview)
    assert (status.state, status.reason) == ("failed", "the loss is not finite at step 13 (images 4, 7); lower the lr.")
    assert status.log == str(plan(runs).work / LOG)
    shown = view.plain("smoke", [status])
    assert status.reason in shown and f"log: {status.log}" in shown


def test_trained_and_not_sealed(overview: Overview, runs: Path) -> None:
    planned = plan(runs)
    planned.work.mkdir(parents=True)
    with Journal(planned.work, planned.title) as journal:
        journal.end("finished", "sealed")
    assert (one(overview).state, one(overview).reason) == ("interrupted", "trained, and not sealed yet")


# ------------------------------------------------------------------------------------------------- other machines


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a `squeue` first on PATH that answers so, and writes down that it was asked."""

    def install(answer: str) -> Path:
        path, asked = tmp_path / "bin" / "squeue", tmp_path / "asked"
        path.parent.mkdir()
        path.write_text(f'#!/bin/sh\necho "$*" >> {asked}\necho {answer}\n')
        path.chmod(0o755)
        asked.write_text("")
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
        return asked

    return install


def test_another_machines_heartbeats_are_believed(
    overview: Overview, runs: Path, squeue: Callable[[str], Path]
) -> None:
    asked = squeue("RUNNING")
    elsewhere(runs, job="4711")
    status = one(overview)
    assert (status.state, status.host, status.job) == ("running", "node7", "4711")
    assert asked.read_text() == "", "no need to ask"
    assert "node7 job 4711" in view.plain("smoke", [status])


def test_a_silent_machine_is_stalled(overview: Overview, runs: Path) -> None:
    elsewhere(runs, silent=SILENCE + 300, quiet=7200)
    status = one(overview)
    assert status.state == "stalled"
    assert (
        status.reason
        == f"no heartbeat, last heard {format_duration(SILENCE + 300)} ago; whoever resumes it takes it over"
    )


@pytest.mark.parametrize(("answer", "state"), [("RUNNING", "stalled"), ("NODE_FAIL", "dead")])
def test_slurm_is_asked_once_per_job_about_silent_machines(
    answer: str, state: str, overview: Overview, runs: Path, squeue: Callable[[str], Path]
) -> None:
    asked = squeue(answer)
    overview.trainings = [FCOS, ONENET, DATE_F]
    for name, job in ((FCOS, "4711"), (ONENET, "4711"), (DATE_F, "4712")):
        work = killed(runs, name=name, host="node7", boot="other", job=job)
        long_ago = time.time() - SILENCE - 60
        os.utime(work / HOLDER, (long_ago, long_ago))
    assert [status.state for status in overview.statuses()] == [state] * 3
    jobs = [line.split()[-1] for line in asked.read_text().splitlines()]
    assert sorted(jobs) == ["4711", "4712"]


# ------------------------------------------------------------------------------------------------- which runs


def test_what_all_makes_comes_first_then_what_else_there_is(overview: Overview, runs: Path) -> None:
    overview.trainings = ["onenet-r50-coco-12e", "date_f_init-r50-coco-30k"]
    overview.seeds = lambda training: [2] if training == ONENET else [1, 0]
    killed(runs, name=DATE_F)
    other = plan(runs, RETINANET)
    with ExitStack() as stack:
        under_way(stack, runs, name=RETINANET)
        rows = [(status.training, status.seed, status.state) for status in overview.statuses()]
    init = "date_f_init-r50-coco-30k"
    planned = [(FCOS, 0), (FCOS, 1), (ONENET, 2), (init, 0), (init, 1)]
    assert rows[:5] == [(*run, "waiting") for run in planned], "with the training that another one starts from"
    assert rows[5:] == [(DATE_F, 0, "dead"), (RETINANET, 0, "running")]
    assert other.work.exists()


def test_other_tiers_are_none_of_its_business(overview: Overview, runs: Path) -> None:
    killed(runs)
    (work,) = (runs / ".work").iterdir()
    for name in (work.name.replace("smoke-", "mini-"), work.name.replace("smoke-", "smoke-large-"), "notes", "smoke"):
        (runs / ".work" / name).mkdir()
        (runs / name).mkdir()
    assert [status.state for status in overview.statuses()] == ["dead"]


def test_a_training_that_the_catalogue_forgot_is_shown_where_it_says_its_tier(overview: Overview, runs: Path) -> None:
    carry_out(plan(runs))
    sealed = plan(runs).sealed
    sealed.rename(sealed.with_name(sealed.name.replace(FCOS, "old-name")))
    assert [(s.training, s.state) for s in overview.statuses()] == [(FCOS, "waiting"), ("old-name", "done")]


def test_of_several_the_present_one_is_shown(overview: Overview, runs: Path, tmp_path: Path) -> None:
    """Where the DAG has prepared the data the identity is known; where not, the newest is shown."""
    killed(runs, until=12, manifest="e" * 64)
    carry_out(plan(runs))
    now = time.time()
    os.utime(plan(runs).sealed / "provenance.json", (now - 1000, now - 1000))
    status = one(overview)
    assert (status.state, status.older, status.older_running) == ("dead", 1, 0), "the newest"

    manifests = tmp_path / "results" / "smoke" / "data"
    manifests.mkdir(parents=True)
    (manifests / "scenes-smoke.json").write_text(json.dumps({"digest": MANIFEST}))
    status = one(overview)
    assert (status.state, status.run, status.older) == ("done", plan(runs).sealed.name, 1)

    (manifests / "scenes-smoke.json").write_text(json.dumps({"digest": "f" * 64}))
    with ExitStack() as stack:
        under_way(stack, runs, manifest="a" * 64)
        status = one(overview)
    assert (status.state, status.run, status.older, status.older_running) == ("waiting", None, 3, 1)
    assert view.plain("smoke", [status]).endswith("3 older (1 running)")


def test_an_imported_run_is_reported_as_such(overview: Overview, runs: Path, tmp_path: Path) -> None:
    carry_out(plan(runs))
    path = plan(runs).sealed / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"imported": {"file": "date_f.pth"}, "segments": []}))
    manifests = tmp_path / "results" / "smoke" / "data"
    manifests.mkdir(parents=True)
    (manifests / "scenes-smoke.json").write_text(json.dumps({"digest": "f" * 64}))
    status = one(overview)
    assert (status.state, status.reason, status.older) == ("imported", "imported from date_f.pth", 0)


def test_results_without_their_run_are_cached_imported_or_stale(overview: Overview, runs: Path, tmp_path: Path) -> None:
    """As after a record was restored, after `import-detections`, and after a change of the code."""
    from date.runs.state import Runs

    results = tmp_path / "results" / "smoke"
    (results / "data").mkdir(parents=True)
    (results / "data" / "scenes-smoke.json").write_text(json.dumps({"digest": MANIFEST}))
    carry_out(plan(runs))
    shutil.copytree(plan(runs).sealed, results / FCOS / "seed0")
    shutil.rmtree(plan(runs).sealed)

    def states() -> tuple[str, str]:
        training = load().training(FCOS)
        return one(overview).state, Runs(overview.tier, overview.results, runs).trained(training, 0).state

    assert states() == ("cached", "cached") and one(overview).ap == 12.0
    path = results / FCOS / "seed0" / "provenance.json"
    provenance = json.loads(path.read_text())
    path.write_text(json.dumps(provenance | {"code_sha256": "old", "run_digest": "old"}))
    assert states() == ("stale", "changed") and one(overview).reason == "training code changed"
    imported = {"detections": {"head": {"file": "a.json"}}, "log": {"file": "b.json"}}
    path.write_text(json.dumps(provenance | {"run_digest": "of no run", "imported": imported}))
    assert states() == ("imported", "cached") and one(overview).reason == "imported from a.json, b.json"


@pytest.mark.parametrize("name", [STATUS, HOLDER, "metrics.jsonl", "segments.jsonl"])
@pytest.mark.parametrize("content", [b"", b'{"state": "tr', b"\0\0\0\xff"])
def test_torn_files_are_borne(name: str, content: bytes, overview: Overview, runs: Path) -> None:
    work = killed(runs)
    (work / name).write_bytes(content)
    assert one(overview).state in ("dead", "waiting")


def test_a_damaged_provenance_is_reported(overview: Overview, runs: Path) -> None:
    carry_out(plan(runs))
    (plan(runs).sealed / "provenance.json").write_text("{")
    assert one(overview).state == "failed" and "delete the folder and train again" in one(overview).reason


def test_the_last_ap_of_a_long_record(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_evaluation(path) is None
    trains = '{"kind": "train", "step": 1, "loss": 1.0}\n'
    path.write_text(trains)
    assert last_evaluation(path) is None
    path.write_text(
        '{"kind": "eval", "AP": 1.5}\n{"kind": "eval", "AP": 2.5}\n' + trains * 40000 + '{"kind": "eval", "A'
    )
    assert path.stat().st_size > 1 << 20
    assert last_evaluation(path) == {"kind": "eval", "AP": 2.5}


# ------------------------------------------------------------------------------------------------- for the eye

STATUSES = [
    RunStatus(FCOS, 0, "done", "a", 90, 90, ap=37.25, host="node1", job="12", reason="6 h 00 min"),
    RunStatus(FCOS, 1, "running", "b", 9, 90, 7200.0, 3.0, "node2", "13"),
    RunStatus(ONENET, 0, "running", "c", 5, 90, 190000.0, None, "node2", None),
    RunStatus(ONENET, 1, "failed", "d", 5, 90, None, None, "node2", None, 3.0, "no [memory] at step 6", "runs/.work/d/train.log"),
    RunStatus(DATE_F, 0),
]  # fmt: skip


def test_the_summary_counts_and_tells_the_longest() -> None:
    assert view.summary("mini", STATUSES) == (
        "mini: 1 done, 2 running, 1 failed, 1 waiting of 5; the longest running needs 2 d 4 h more"
    )
    assert view.summary("mini", STATUSES[:1]) == "mini: 1 done of 1"


def test_plain_lines_are_aligned() -> None:
    head, columns, *rows = view.plain("mini", STATUSES).splitlines()
    assert head.startswith("mini: 1 done")
    place = columns.index("state")
    assert [row[place:].split()[0] for row in rows] == ["done", "running", "running", "failed", "waiting"]
    assert rows[1].split() == [FCOS, "1", "running", "9/90", "2", "h", "00", "min", "3.0", "node2", "job", "13"]
    assert rows[3].endswith("no [memory] at step 6; log: runs/.work/d/train.log")


def test_a_terminals_table_has_the_same() -> None:
    from rich.console import Console

    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(view.table("mini", STATUSES))
    shown = console.export_text()
    console.file.close()
    for cell in (FCOS, "37.2", "9/90", "2 h 00 min", "node2 job 13", "no [memory] at step 6", "runs/.work/d/train.log"):
        assert cell in shown
    assert set(view.COLOURS) == set(STATES)


@pytest.mark.timed
def test_watching_appends_lines_until_all_are_done(overview: Overview, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    killed(runs)
    finisher = threading.Timer(0.3, carry_out, [plan(runs)])
    finisher.start()
    view.watch(overview, 0.05)
    finisher.join()
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "smoke: 1 dead of 1" and lines[-1] == "smoke: 1 done of 1" and len(lines) > 2


def test_watching_on_a_terminal_renews_the_table_and_puts_trouble_on_top(
    overview: Overview, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = [STATUSES, [RunStatus(FCOS, 0, "done")]]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(overview, "statuses", lambda: looks.pop(0))
    view.watch(overview, 0.01)
    shown = capsys.readouterr().out
    assert looks == [] and "smoke: 1 done of 1" in shown


# ------------------------------------------------------------------------------------------------- the command


def command(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "date", "status", "--tier", "smoke", *map(str, arguments)],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip


def test_the_command_line(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        carry_out(plan(runs), raising(UserError("memory ran out at step 3; use --images-per-pass.")), until=2)
    killed(runs, name=DATE_F)
    options = ("--runs", "runs", "--results", "results", "--seeds", "0", "1")
    done = command(*options, cwd=tmp_path)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and "date.runs.overview" in imported
    assert not {"torch", "mmengine", "mmdet", "cv2"} & imported
    lines = done.stdout.splitlines()
    assert lines[0] == "smoke: 1 dead, 1 failed, 6 waiting of 8"
    (failed,) = (line for line in lines if " failed " in line)
    work = Path("runs", ".work", plan(runs).work.name)
    assert failed.startswith(FCOS) and failed.endswith(f"memory ran out at step 3; use --images-per-pass.; log: {work / LOG}")  # fmt: skip
    assert (tmp_path / work / LOG).exists(), "as it is named, from where the command was typed"

    answer = json.loads(command(*options, "--json", cwd=tmp_path).stdout)
    assert answer["tier"] == "smoke" and len(answer["runs"]) == 8
    (dead,) = (run for run in answer["runs"] if run["state"] == "dead")
    assert (dead["training"], dead["step"], dead["steps"], dead["ap"]) == (DATE_F, 10, STEPS, 11.0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--watch", "0"), "0 is not an interval; give the seconds between two updates"),
        (("--watch", "--json"), "not allowed with argument"),
        (("--seeds", "-1"), "'-1' is not a seed"),
        (("--tier", "smokey"), "unknown tier 'smokey'; did you mean 'smoke'?"),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    done = subprocess.run([sys.executable, "-m", "date", "status", *arguments], cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr


def test_commands_take_settings_in_one_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` and `plan` are for the seeds and trainings that `report` and Snakemake are given."""
    given = ["--settings", json.dumps({"tier": "smoke", "seeds": [7], "trainings": ["fcos-r50-coco-12e"]})]
    kept = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert main(["status", "--json", *kept, *given]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["tier"] == "smoke"
    assert [(run["training"], run["seed"]) for run in status["runs"]] == [("fcos-r50-coco-12e", 7)]
    assert main(["status", "--json", "--tier", "smoke", "--seeds", "8", *kept, *given]) == 0
    assert [run["seed"] for run in json.loads(capsys.readouterr().out)["runs"]] == [8]
    assert main(["plan", "all", "--json", *kept, *given]) == 0
    plan = capsys.readouterr().out
    assert '"fcos-r50-coco-12e"' in plan and '"seed": 7' in plan and "onenet" not in plan
    assert load_settings().tier == "mini", "a command's settings end with it"
    assert main(["plan", *given[:1], '{"sedes": [1]}']) == 2
    assert "unknown key 'sedes'; did you mean 'seeds'" in capsys.readouterr().err


def test_every_command_that_knows_tiers_takes_settings() -> None:
    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    takes = {name: set(parser._option_string_actions) for name, parser in commands.choices.items()}
    assert {"report", "plan", "status", "doctor", "rehearse", "calibrate", "train", "config"} <= {
        name for name, options in takes.items() if {"--tier", "--settings"} <= options
    }
    assert [n for n, o in takes.items() if "--tier" in o and "--settings" not in o] == ["detect", "export"]
