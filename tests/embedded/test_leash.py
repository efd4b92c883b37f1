"""Nothing outlives the server, however it ends."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from server.embedded import leash

Spawn = Callable[..., subprocess.Popen[str]]
Family = Callable[[int], list[psutil.Process]]
GONE_S = 5
ON_A_LEASH = [sys.executable, "-I", "-S", leash.__file__]
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
CHEERFUL = "import signal; print('up', flush=True); signal.pause()"


def test_kill_9_of_the_server_leaves_nobody(all_three: subprocess.Popen[str], family: Family) -> None:
    """A server killed with -9 takes Postgres, Redis and the engine with it within five seconds."""
    descendants = family(all_three.pid)
    assert len(descendants) >= 6
    all_three.kill()
    _, alive = psutil.wait_procs(descendants, timeout=GONE_S)
    assert alive == []


def test_ctrl_c_reaches_the_server_only(all_three: subprocess.Popen[str], family: Family) -> None:
    """SIGINT for the server's whole process group leaves every part answering."""
    descendants = family(all_three.pid)
    os.killpg(all_three.pid, signal.SIGINT)
    assert all_three.stdout is not None
    assert all_three.stdout.readline() == "all answer\n"
    assert all(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in descendants[:6])


def test_a_server_that_stops_leaves_nobody(all_three: subprocess.Popen[str], family: Family) -> None:
    """An orderly end ends every part, and takes less than five seconds."""
    descendants = family(all_three.pid)
    all_three.communicate("stop\n", timeout=GONE_S)
    assert all_three.returncode == 0
    assert psutil.wait_procs(descendants, timeout=0)[1] == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a child that its parent died")
def test_kill_9_of_the_leashes_leaves_nobody(all_three: subprocess.Popen[str], family: Family) -> None:
    """When everything but the programs themselves is killed with -9, the kernel ends the programs."""
    descendants = family(all_three.pid)
    leashes = [child for child in descendants if leash.__file__ in child.cmdline()]
    assert len(leashes) == 3
    for killed in (psutil.Process(all_three.pid), *leashes):
        killed.kill()
    _, alive = psutil.wait_procs(descendants, timeout=GONE_S)
    assert alive == []


@pytest.mark.parametrize(
    ("ending", "status"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_status_is_passed_on(spawn: Spawn, ending: str, status: int) -> None:
    """A command that ends by itself gives the leash its status, 128 + number for a signal."""
    assert spawn(*ON_A_LEASH, "SIGTERM", "1000", sys.executable, "-c", ending).wait(GONE_S) == status


def test_a_missing_command_says_so(spawn: Spawn) -> None:
    """A command that does not exist is named in a sentence."""
    program = spawn(*ON_A_LEASH, "SIGTERM", "1000", "/nowhere/at-all", stderr=subprocess.PIPE)
    assert program.wait(GONE_S) == leash.NOT_FOUND
    assert program.stderr is not None
    assert program.stderr.read() == "/nowhere/at-all cannot be run: No such file or directory.\n"


def test_stubborn_programs_are_killed(spawn: Spawn) -> None:
    """A program that ignores the polite signal is killed when its grace is over."""
    program = spawn(*ON_A_LEASH, "SIGTERM", "100", sys.executable, "-c", STUBBORN)
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdout.readline()
    program.stdin.close()
    assert program.wait(GONE_S) == 128 + signal.SIGKILL


@pytest.mark.parametrize("ask", ["close", "terminate"])
def test_the_polite_signal_comes_first(spawn: Spawn, ask: str) -> None:
    """A closed pipe, or a SIGTERM for the leash, gives the program the signal that was chosen for it."""
    program = spawn(*ON_A_LEASH, "SIGUSR1", "60000", sys.executable, "-c", CHEERFUL)
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdout.readline()
    program.stdin.close() if ask == "close" else program.terminate()
    assert program.wait(GONE_S) == 128 + signal.SIGUSR1


@pytest.mark.skipif(
    os.geteuid() != 0 or not sys.platform.startswith("linux"), reason="root on Linux enters a namespace"
)
def test_root_becomes_somebody(spawn: Spawn, data_dir: Path) -> None:
    """Below --not-root the effective user is not root, and a file that is written belongs to root outside."""
    made = data_dir / "made"
    program = spawn(*ON_A_LEASH, "SIGTERM", "1000", "--not-root", "/bin/sh", "-c", f"id -u; touch {made}")
    assert program.stdout is not None
    assert int(program.stdout.read()) > 0
    assert made.stat().st_uid == 0


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare(1) to forbid namespaces with")
def test_forbidden_namespaces_give_one_sentence(spawn: Spawn) -> None:
    """Root in a container without user namespaces is told what to do instead."""
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"]
    program = spawn(*inside, *ON_A_LEASH, "SIGINT", "1000", "--not-root", "/bin/true", stderr=subprocess.PIPE)
    assert program.wait(GONE_S) == leash.REFUSED
    assert program.stderr is not None
    assert program.stderr.read() == f"{leash.NO_NAMESPACE}\n"
