"""One writer: who is refused, who is taken over, and who notices; with real processes and a `squeue` of our own."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from date.catalogue import ROOT
from date.errors import UserError
from date.training import lease as module
from date.training.lease import HOLDER, Lease, LeaseLostError, known_dead, process_start, read_holder

pytestmark = pytest.mark.timed

BEAT, SILENCE = 0.05, 0.4
Said = list[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return tmp_path / "run"


@pytest.fixture
def said() -> Said:
    return []


def take(folder: Path, said: Said | None = None) -> Lease:
    return Lease(folder, "training it", (said if said is not None else []).append, BEAT, SILENCE)


def holder(**changes: Any) -> dict[str, Any]:
    """A holder on another machine."""
    other = {"token": "theirs", "host": "elsewhere", "boot": "other", "pid": 1, "started": "1", "job": None}
    other |= {"cluster": None, "restart": 0, "beat": 0}
    return other | changes


def leave(folder: Path, **changes: Any) -> None:
    """Let another hold the folder."""
    folder.mkdir(exist_ok=True)
    (folder / HOLDER).write_text(json.dumps(holder(**changes)))


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def lockf(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", lockf)


HOLD = """
import sys
from pathlib import Path
from date.training.lease import Lease
with Lease(Path(sys.argv[1]), "training it"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold_elsewhere(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_lease_is_there_while_it_is_held_and_beats(folder: Path, said: Said) -> None:
    with take(folder, said) as lease:
        first = read_holder(folder / HOLDER)
        assert first is not None and (first["pid"], first["host"]) == (os.getpid(), socket.gethostname())
        assert wait(lambda: (read_holder(folder / HOLDER) or {})["beat"] >= 2)
        lease.check()
    assert sorted(path.name for path in folder.iterdir()) == ["lock"], "no lease, no leftovers"
    assert said == []
    with take(folder):
        pass


def wait(condition: Callable[[], bool], patience: float = 10.0) -> bool:
    return any(condition() or pause.wait(0.01) for pause in [threading.Event()] for _ in range(int(patience / 0.01)))


def test_a_second_holder_in_the_same_process_is_refused_with_the_first_ones_name(folder: Path) -> None:
    with take(folder) as lease:
        with pytest.raises(UserError, match=rf"training it is being done by process {os.getpid()} on .*; wait for it or stop it first"):  # fmt: skip
            take(folder).__enter__()
        lease.check()


def test_another_process_is_refused_and_its_death_seen_at_once(folder: Path, said: Said) -> None:
    process = hold_elsewhere(folder)
    try:
        with pytest.raises(UserError, match=f"training it is being done by process {process.pid} on"):
            take(folder).__enter__()
    finally:
        process.kill()
        process.wait()
    assert (folder / HOLDER).exists(), "it could not tidy up"
    with take(folder, said):
        pass
    assert said == [f"taking over from process {process.pid} on {socket.gethostname()}, which is gone"]


def test_a_process_that_leaves_is_no_holder(folder: Path, said: Said) -> None:
    process = hold_elsewhere(folder)
    process.communicate("")
    with take(folder, said):
        pass
    assert said == []


@pytest.mark.usefixtures("without_locks")
def test_a_file_system_without_locks_relies_on_the_lease(folder: Path, said: Said) -> None:
    with take(folder, said) as lease:
        assert said == [f"{folder} can't be locked (No locks available); relying on heartbeats alone"]
        with pytest.raises(UserError, match=f"by process {os.getpid()} on"):
            take(folder).__enter__()
        lease.check()


def here(**changes: Any) -> dict[str, Any]:
    """A holder on this machine."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    mine = {"host": socket.gethostname(), "boot": boot, "pid": os.getpid(), "started": process_start(os.getpid())}
    return holder(**mine | changes)


def test_a_reused_process_number_is_recognised_by_its_start(folder: Path, said: Said) -> None:
    assert known_dead(here()) is False
    assert known_dead(here(started="1")) is True
    leave(folder, **here(started="1"))
    with take(folder, said):
        assert "which is gone" in said[0]


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    started = process_start(process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its number is not free yet
    assert known_dead(here(pid=process.pid, started=started)) is True
    process.wait()
    assert known_dead(here(pid=process.pid, started=started)) is True


def test_another_machine_is_judged_by_its_silence(folder: Path, said: Said) -> None:
    assert known_dead(holder()) is None
    assert known_dead(here(boot="another boot")) is None, "or another machine of the same name"
    leave(folder)
    with take(folder, said):
        pass
    assert said == [
        f"process 1 on elsewhere held run; listening {SILENCE:g} s for its heartbeats",
        "taking over from process 1 on elsewhere, which is gone",
    ]


def test_another_machines_heartbeats_are_heard(folder: Path, said: Said) -> None:
    leave(folder)
    done = threading.Event()

    def beat() -> None:
        count = 0
        while not done.wait(SILENCE / 2):
            count += 1
            partial = folder / "partial"
            partial.write_text(json.dumps(holder(beat=count)))
            partial.replace(folder / HOLDER)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(UserError, match="is being done by process 1 on elsewhere; wait"):
            Lease(folder, "training it", said.append, BEAT, silence=10).__enter__()
    finally:
        done.set()
        heart.join()
    now = read_holder(folder / HOLDER)
    assert now is not None and now["token"] == "theirs", "still its holder"


def test_a_holder_that_leaves_while_it_is_listened_to(folder: Path, said: Said) -> None:
    leave(folder)
    timer = threading.Timer(SILENCE / 3, (folder / HOLDER).unlink)
    timer.start()
    with take(folder, said) as lease:
        lease.check()
    timer.join()


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a `squeue` first on PATH that runs some shell."""

    def install(script: str) -> None:
        path = tmp_path / "bin" / "squeue"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    return install


def test_the_job_of_another_cluster_is_not_asked_about(
    squeue: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue("echo COMPLETED")  # here, another job
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "here")
    assert known_dead(holder(job="5", cluster="there")) is None
    assert known_dead(holder(job="5", cluster="here")) is True


def test_a_job_that_slurm_started_again_knows_its_predecessor(
    squeue: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake's plugin takes SLURM_RESTART_COUNT away: Slurm itself is asked, and the variable only where it is mute."""
    squeue("echo RUNNING")  # the job runs: it is this process
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text("#!/bin/sh\necho JobId=$4 JobName=x Requeue=1 Restarts=2 BatchFlag=1\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    module._restarts.cache_clear()
    assert known_dead(holder(job="5", restart=1)) is True
    assert known_dead(holder(job="5", restart=2)) is None, "another step of the same job"
    scontrol.write_text("#!/bin/sh\nexit 1\n")
    module._restarts.cache_clear()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert known_dead(holder(job="5", restart=0)) is True
    assert known_dead(holder(job="5", restart=1)) is None
    module._restarts.cache_clear()


def test_who_was_taken_over_learns_it_at_the_next_beat(folder: Path) -> None:
    """A bad moment of the file server is no takeover."""
    lost = threading.Event()
    lease = Lease(folder, "training it", beat=0.2, silence=SILENCE, lose=lost.set)
    with lease:
        content = (folder / HOLDER).read_text()
        (folder / HOLDER).write_text("{")
        assert not lost.wait(0.6)
        (folder / HOLDER).write_text(content)
        assert not lost.wait(0.6)
        leave(folder, token="another")
        assert lost.wait(5)
        with pytest.raises(UserError, match="taken over by process 1 on"):
            lease.check()


@pytest.mark.parametrize(
    ("script", "dead"),
    [
        ("echo RUNNING", None),
        ("echo COMPLETING", None),
        ("echo SIGNALING", None),
        ("printf 'RUNNING\\nCOMPLETED\\n'", None),  # tasks of an array
        ("echo COMPLETED", True),
        ("echo NODE_FAIL", True),
        ("printf 'FAILED\\nTIMEOUT\\n'", True),
        ("exit 0", None),  # unknown: it may live, since a controller can lose its memory
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", None),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", None),
    ],
)
def test_slurm_is_asked_about_a_job(squeue: Callable[[str], None], script: str, dead: bool | None) -> None:
    squeue(f'[ "$*" = "--noheader --states=all --format=%T --jobs 4711" ] || exit 9\n{script}')
    assert known_dead(holder(job="4711")) is dead


def test_without_slurm_silence_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert known_dead(holder(job="4711")) is None


def test_a_job_that_slurm_ended_is_taken_over_at_once(
    folder: Path, said: Said, squeue: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue("echo PREEMPTED")
    monkeypatch.setenv("SLURM_JOB_ID", "4712")
    leave(folder, job="4711")
    with take(folder, said):
        assert said == ["taking over from process 1 on elsewhere (Slurm job 4711), which is gone"]
        mine = read_holder(folder / HOLDER)
        assert mine is not None and mine["job"] == "4712"


@pytest.mark.parametrize("before", ["a dead one", "nobody", "damaged"])
@pytest.mark.usefixtures("without_locks")
def test_of_several_at_once_exactly_one_wins(before: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on several machines whose file system shares no locks; all have looked before any acts."""
    folder.mkdir()
    if before == "a dead one":
        leave(folder, **here(started="1"))
    elif before == "damaged":
        (folder / HOLDER).write_text('{"token": "th')
    start, over, outcomes = threading.Barrier(4), threading.Event(), []

    def read_together(path: Path) -> dict[str, Any] | None:
        found = read_holder(path)
        if threading.current_thread() in waiting:
            waiting.remove(threading.current_thread())
            start.wait(10)
        return found

    monkeypatch.setattr(module, "read_holder", read_together)

    def run() -> None:
        lease = Lease(folder, "training it", beat=0.5, silence=SILENCE)
        try:
            with lease:
                outcomes.append("won")
                over.wait(20)
                lease.check()
        except UserError:
            outcomes.append("refused")

    threads = [threading.Thread(target=run, daemon=True) for _ in range(4)]
    waiting = set(threads)
    for thread in threads:
        thread.start()
    assert wait(lambda: len(outcomes) == 4)
    over.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 3 + ["won"], "and the winner's lease was not lost"
    assert sorted(path.name for path in folder.iterdir()) == ["lock"]


@pytest.mark.usefixtures("without_locks")
def test_who_was_overtaken_while_asking_gives_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(folder, job="4711")

    def slow_squeue(job: str) -> str:
        leave(folder, token="third", host="third", job=None)  # which was told sooner
        return "FAILED"

    monkeypatch.setattr(module, "known_dead", lambda held: known_dead(held, slow_squeue))
    with pytest.raises(UserError, match="by process 1 on third"):
        take(folder).__enter__()
    now = read_holder(folder / HOLDER)
    assert now is not None and now["token"] == "third"


def test_a_file_system_without_hard_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    with take(folder) as lease:
        lease.check()


def test_an_answer_that_got_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server that is asked to link a second time, since its first answer got lost, says that the name exists."""
    original = os.link

    def link(source: Path, target: Path) -> None:
        original(source, target)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(os, "link", link)
    with take(folder) as lease:
        lease.check()


def test_a_lost_lease_is_noticed_and_left_alone(folder: Path) -> None:
    with take(folder) as lease:
        while lease.heart.is_alive():  # it beats no more as soon as it sees another's name
            leave(folder)
            lease.heart.join(0.2)
        for _ in range(2):
            with pytest.raises(LeaseLostError, match="training it was taken over by process 1 on elsewhere while this"):
                lease.check()
    now = read_holder(folder / HOLDER)
    assert now is not None and now["token"] == "theirs"


@pytest.mark.parametrize("content", [b"", b"\0" * 150, b'{"token": "th', b"\xff\xfe", b"[]", b'{"token": "x"}'])
def test_a_damaged_lease_is_nobodys(content: bytes, folder: Path) -> None:
    folder.mkdir()
    (folder / HOLDER).write_bytes(content)
    assert read_holder(folder / HOLDER) is None
    with take(folder) as lease:
        lease.check()


def test_a_stale_file_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(folder)
    original, failures = Path.read_bytes, [OSError(errno.ESTALE, os.strerror(errno.ESTALE))]

    def read_bytes(path: Path) -> bytes:
        if failures:
            raise failures.pop()
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert read_holder(folder / HOLDER) == holder()


def test_the_heart_outlives_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with take(folder) as lease:
        original, failed = lease._write, threading.Event()

        def write(beat: int) -> None:
            if not failed.is_set():
                failed.set()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(beat)

        monkeypatch.setattr(lease, "_write", write)
        assert failed.wait(10)
        before = read_holder(folder / HOLDER)
        assert before is not None
        assert wait(lambda: (read_holder(folder / HOLDER) or before)["beat"] > before["beat"])


def test_the_module_needs_the_standard_library_alone() -> None:
    code = (
        "import sys, date.training.lease;"
        "third = {m.split('.')[0] for m, v in sys.modules.items() if 'site-packages' in (getattr(v, '__file__', '') or '')};"
        "assert third <= {'_distutils_hack'} and 'torch' not in sys.modules, third"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
