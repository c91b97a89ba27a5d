#!/usr/bin/env python3
"""A real Slurm cluster of four nodes on this machine, for tests: Debian or Ubuntu, root, no init system, no cgroups.

    python tests/slurm/cluster.py install    install what is missing
    python tests/slurm/cluster.py start      the same, then bring it up, new (again: nothing happens)
    python tests/slurm/cluster.py status     the daemons and the partitions
    python tests/slurm/cluster.py stop       cancel its jobs, end the daemons that ``start`` began, remove its configuration
    python tests/slurm/cluster.py destroy    stop, and remove its state

It has munge, slurmctld, a slurmd for each node, accounting with limits (slurmdbd on a private MariaDB), and GPUs that are
null devices. Each node has a host name of its own (in namespaces; only there the names resolve), so that processes on two
of them take each other for remote. State, logs and process ids lie in DATE_SLURM_STATE, by default /var/tmp/date-slurm. The configuration has to lie in
/etc/slurm, since the executor plugin drops SLURM_CONF inside jobs; a configuration that something else wrote is never
touched. Needs nothing but Python's standard library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

STATE = Path(os.environ.get("DATE_SLURM_STATE", "/var/tmp/date-slurm"))
RUN, LOG, GPUS = STATE / "run", STATE / "log", STATE / "gpu"
ETC = Path("/etc/slurm")
MARK = "# written by tests/slurm/cluster.py of the DATE reproduction"
PACKAGES = ["munge", "slurmctld", "slurmd", "slurm-client", "slurmdbd", "mariadb-server-core", "mariadb-client-core"]
NODES = ["node1", "node2", "node3", "node4"]
DAEMONS = [
    *(f"slurmd-{node}" for node in NODES),
    "slurmctld",
    "slurmdbd",
    "mariadbd",
    "munged",
]  # in the order of stopping
NUMBER_OF_GPUS = 16
"""Of each node."""
CPUS, MEMORY = 64, 1_000_000
"""What a node claims, memory in MB: as a real one does, for the profile's own requests. Tests use little of it."""
ACCOUNT = "ci"
FEW, MOST = "few", 3
"""A quality of service, and how many jobs a user may have in the queue with it."""
NARROW = "narrow"
"""A partition in which a user may have one job in the queue."""

SLURM_CONF = """{mark}
ClusterName=date
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits this long before it starts again (120 by default).
AuthInfo=cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/slurmd/%n
SlurmctldPidFile={state}/run/slurmctld.pid
SlurmdPidFile={state}/run/slurmd-%n.pid
SlurmctldLogFile={state}/log/slurmctld.log
SlurmdLogFile={state}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
# Memory limits without cgroups: sampled; what is over is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
# cons_tres is what --gpus needs.
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# More CPUs and memory than there are; a node that comes back is used again.
SlurmdParameters=config_overrides
ReturnToService=2
# A node that is silent for so long is down.
SlurmdTimeout=30
SlurmctldTimeout=30
# squeue, which the plugin asks, shows finished jobs this long.
MinJobAge=600
KillWait=30
JobRequeue=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=limits,qos
GresTypes=gpu
NodeName=node[1-{nodes}] NodeAddr=127.0.0.1 Port=[17001-{last_port}] CPUs={cpus} RealMemory={memory} Gres=gpu:fake:{gpus}
# LLN: the next job goes to the node that has the least to do.
PartitionName=gpu Nodes=ALL Default=YES LLN=YES PriorityTier=10 PreemptMode=OFF DefaultTime=60 DefMemPerCPU=500 State=UP
# Jobs of the partition 'gpu' drive those of 'spare' out, which are cancelled.
PartitionName=spare Nodes=node1 PriorityTier=1 PreemptMode=CANCEL GraceTime=10 DefaultTime=60 DefMemPerCPU=500 State=UP
# Has a limit of its own on the jobs that a user may have in the queue.
PartitionName={narrow} Nodes=ALL LLN=YES QOS={narrow} PriorityTier=10 PreemptMode=OFF DefaultTime=60 DefMemPerCPU=500 State=UP
"""

SLURMDBD_CONF = """{mark}
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
SlurmUser=root
PidFile={state}/run/slurmdbd.pid
LogFile={state}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""


class ClusterError(Exception):
    """The cluster can't be run here; the message says why."""


def obstacle() -> str | None:
    """Return why no cluster can be run on this machine, or None."""
    if os.geteuid() != 0:
        return "a Slurm cluster for tests needs root (daemons, device nodes, /etc/slurm); run as root in a container"
    if shutil.which("apt-get") is None and shutil.which("slurmctld") is None:
        return "Slurm is not installed and there is no apt-get to install it with"
    conf = ETC / "slurm.conf"
    if conf.exists() and MARK not in conf.read_text(errors="replace"):
        return f"{conf} belongs to another Slurm installation, which the tests leave alone"
    return None


def start() -> None:
    """Bring a cluster up that knows of no jobs; one that is up already stays.

    Raises:
        ClusterError: it can't be run here, or a daemon did not come up.
    """
    if (why := obstacle()) is not None:
        raise ClusterError(why)
    install()
    if not any(map(alive, DAEMONS)):  # what a former cluster left, a node that it drained or a job in its queue
        shutil.rmtree(STATE, ignore_errors=True)
    for folder in ("ctld", "log", "run", "gpu", *(f"slurmd/{node}" for node in NODES)):
        (STATE / folder).mkdir(parents=True, exist_ok=True)
    if not all(map(alive, DAEMONS)) or not (ETC / "slurm.conf").exists():  # .ci/with-own-slurm: gone, they live on
        write_configuration()
    start_munge()
    start_accounting()
    start_controller()
    for node in NODES:
        start_node(node)
    wait("the nodes", lambda: all(map(takes_jobs, NODES)))


def start_controller(*options: str) -> None:
    """Start the controller, if it isn't there, and wait until it answers; with ``-c`` it has forgotten all jobs."""
    if not alive("slurmctld"):
        sh("slurmctld", *options)
    wait("slurmctld", lambda: succeeds("scontrol", "ping"))


def start_node(node: str) -> None:
    """Start a node's daemon, if it isn't there, under a host name of its own."""
    if not alive(f"slurmd-{node}"):
        steps = 'hostname "$0" && mount --bind "$1" /etc/hosts && exec slurmd -N "$0"'
        sh("unshare", "--uts", "--mount", "sh", "-c", steps, node, str(STATE / "hosts"))
        wait(f"the daemon of {node}", lambda: alive(f"slurmd-{node}"))


def takes_jobs(node: str) -> bool:
    """Say whether a node takes jobs."""
    return output("sinfo", "-h", "-n", node, "-o", "%t", check=False).split("\n")[0] in ("idle", "mix", "alloc")


def lose(node: str) -> None:
    """End everything on a node at once, as a loss of power does."""
    daemon = process(f"slurmd-{node}")
    ours = namespace(daemon or os.getpid())
    if daemon is None or ours == namespace(os.getpid()):
        raise ClusterError(f"{node} has no namespace of its own")
    for how in (signal.SIGSTOP, signal.SIGKILL):  # none may tell of another's end
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and namespace(int(folder.name)) == ours:
                    os.kill(int(folder.name), how)
    wait(f"the end of {node}", lambda: not alive(f"slurmd-{node}"))


def namespace(pid: int) -> str:
    """Return what tells the processes of a node from others."""
    return os.readlink(f"/proc/{pid}/ns/uts")


def install() -> None:
    """Install the Debian packages that are missing, without letting them start services."""
    have = output("dpkg-query", "-W", "-f=${Package} ${Status}\\n", *PACKAGES, check=False)
    missing = [name for name in PACKAGES if f"{name} install ok installed" not in have]
    if not missing:
        return
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        sh("apt-get", "update", "-qq", env=environment)
        sh("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=environment)
    finally:
        if ours:
            policy.unlink()


def write_configuration() -> None:
    """Write /etc/slurm and the device nodes of the GPUs."""
    ETC.mkdir(exist_ok=True)
    host = socket.gethostname().split(".")[0]
    values = dict(mark=MARK, state=STATE, host=host, cpus=CPUS, memory=MEMORY, gpus=NUMBER_OF_GPUS)
    values |= dict(nodes=len(NODES), last_port=17000 + len(NODES), narrow=NARROW)
    (ETC / "slurm.conf").write_text(SLURM_CONF.format(**values))
    slurmdbd = ETC / "slurmdbd.conf"
    slurmdbd.touch(mode=0o600)
    slurmdbd.write_text(SLURMDBD_CONF.format(**values))
    (STATE / "hosts").write_text("127.0.0.1 localhost " + " ".join([host, *NODES]) + "\n")
    (ETC / "cgroup.conf").write_text(f"{MARK}\nCgroupAutomount=no\n")
    lines = [MARK]
    for i in range(NUMBER_OF_GPUS):
        device = GPUS / f"nvidia{i}"
        if not device.exists():
            os.mknod(device, 0o20666, os.makedev(1, 3))  # of a plain file slurmd would not set CUDA_VISIBLE_DEVICES
        lines.append(f"NodeName=node[1-{len(NODES)}] Name=gpu Type=fake File={device}")
    (ETC / "gres.conf").write_text("\n".join(lines) + "\n")


def start_munge() -> None:
    """Start munged, unless one answers already."""
    if succeeds("munge", "-n"):
        return
    key = Path("/etc/munge/munge.key")
    if not key.exists() or not key.stat().st_size:
        key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    shutil.chown(key, "munge", "munge")
    for folder, mode in (("/run/munge", 0o755), ("/var/log/munge", 0o700), ("/var/lib/munge", 0o700)):
        Path(folder).mkdir(exist_ok=True)
        Path(folder).chmod(mode)
        shutil.chown(folder, "munge", "munge")
    sh("setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups", "/usr/sbin/munged")
    wait("munge", lambda: succeeds("munge", "-n"))
    link = RUN / "munged.pid"
    link.unlink(missing_ok=True)
    link.symlink_to("/run/munge/munged.pid")


def start_accounting() -> None:
    """Start MariaDB on a private socket and slurmdbd on it, and add the account."""
    sock = RUN / "mysql.sock"
    environment = os.environ | {"MYSQL_UNIX_PORT": str(sock)}
    if not alive("mariadbd"):
        data = STATE / "mysql"
        if not (data / "mysql").exists():
            options = ["--user=root", "--auth-root-authentication-method=socket", "--skip-test-db"]
            sh("mariadb-install-db", "--no-defaults", f"--datadir={data}", *options)
        sizes = ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-lock-wait-timeout=900"]
        command = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-networking"]
        command += [f"--socket={sock}", f"--pid-file={RUN / 'mariadbd.pid'}", f"--log-error={LOG / 'mariadb.log'}"]
        silent = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.Popen([*command, *sizes], start_new_session=True, env=environment, **silent)  # type: ignore[call-overload]
        wait("mariadbd", lambda: succeeds("mariadb", "--no-defaults", f"--socket={sock}", "-e", "select 1"))
    if not alive("slurmdbd"):
        sh("slurmdbd", env=environment)
        wait("slurmdbd", lambda: succeeds("sacctmgr", "-n", "list", "cluster"))
    for words in (
        ["cluster", "date"],
        ["account", ACCOUNT, "Cluster=date"],
        ["user", "root", f"Account={ACCOUNT}", "Cluster=date", f"DefaultAccount={ACCOUNT}"],
        ["qos", FEW, f"MaxSubmitJobsPerUser={MOST}"],
        ["qos", NARROW, "MaxSubmitJobsPerUser=1"],
    ):
        succeeds("sacctmgr", "-i", "add", *words)  # fails where it is there already
    succeeds("sacctmgr", "-i", "modify", "user", "root", "set", f"qos+={FEW}")


def add_people(group: str, names: list[str]) -> None:
    """Add users of one group, without home folders, who may use the cluster; again: nothing happens."""
    succeeds("groupadd", group)
    for name in names:
        succeeds("useradd", "--no-create-home", "--no-user-group", "--gid", group, name)
        succeeds("sacctmgr", "-i", "add", "user", name, f"Account={ACCOUNT}", "Cluster=date")


def remove_people(group: str, names: list[str]) -> None:
    """Remove them again."""
    for name in names:
        succeeds("sacctmgr", "-i", "delete", "user", name)
        succeeds("userdel", name)
    succeeds("groupdel", group)


def stop() -> None:
    """Cancel the cluster's jobs, end its daemons by the process ids that they wrote, and remove its configuration.

    With a configuration and no controller every Snakemake on the machine waits ten seconds as it starts, since the
    executor plugin asks Slurm for its settings.
    """
    if alive("slurmctld"):
        with contextlib.suppress(ClusterError):  # a controller that can't be asked is ended all the same
            if jobs := output("squeue", "-h", "-o", "%A").split():
                succeeds("scancel", *jobs)
                wait("the jobs", lambda: not output("squeue", "-h").strip(), seconds=15)
    for daemon in DAEMONS:
        end(daemon)
    for name in ("slurm.conf", "gres.conf", "cgroup.conf", "slurmdbd.conf"):
        file = ETC / name
        if file.exists() and MARK in file.read_text():
            file.unlink()


def end(daemon: str, how: signal.Signals = signal.SIGTERM) -> None:
    """Send a daemon of this cluster a signal and wait until it is gone."""
    if (pid := process(daemon)) is not None:
        os.kill(pid, how)
        wait(f"the end of {daemon}", lambda: not alive(daemon))


def destroy() -> None:
    """Stop the cluster and remove its state."""
    stop()
    shutil.rmtree(STATE, ignore_errors=True)


def status() -> None:
    """Print the daemons' process ids and the partitions.

    Raises:
        ClusterError: the controller lives and can't be asked, as without its configuration.
    """
    for daemon in DAEMONS:
        print(f"{daemon:10} {process(daemon) or '-'}")
    if alive("slurmctld"):
        print(output("sinfo", "-o", "%P %a %t %c cpus %m MB %G"), end="")


def process(daemon: str) -> int | None:
    """Return the process id that a daemon wrote, if it lives."""
    try:
        pid = int((RUN / f"{daemon}.pid").read_text())
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    name, _, rest = state.partition("(")[2].rpartition(")")
    return pid if daemon.startswith(name) and not rest.startswith(" Z") else None


def alive(daemon: str) -> bool:
    """Say whether a daemon of this cluster lives."""
    return process(daemon) is not None


def sh(*command: str, env: dict[str, str] | None = None) -> None:
    """Run a command quietly; its last words are told where it fails."""
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")


def output(*command: str, check: bool = True) -> str:
    """Return what a command prints.

    Raises:
        ClusterError: it failed, unless ``check`` is false.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode:
        raise ClusterError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:].strip()}")
    return done.stdout


def succeeds(*command: str) -> bool:
    """Say whether a command ends well."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def wait(what: str, ready: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until something is true.

    Raises:
        ClusterError: it was not, in time.
    """
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise ClusterError(f"waited {seconds:g} s for {what}; see {LOG}")
        time.sleep(0.1)


def main(arguments: list[str]) -> int:
    """Run one of the commands."""
    commands = {"install": install, "start": start, "stop": stop, "status": status, "destroy": destroy}
    if len(arguments) != 1 or arguments[0] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        commands[arguments[0]]()
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments[0] == "start":
        status()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
