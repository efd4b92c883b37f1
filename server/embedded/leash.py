"""Runs a command that must not outlive whoever started it.

    python -I -S leash.py SIGNAL GRACE_MS [--not-root] COMMAND [ARGUMENT...]

A server that is killed with -9 runs no clean-up, so nothing in the server can promise that its children end with it.
The kernel can: it closes the dead server's files. The server holds the write end of a pipe, this program holds the read
end as its standard input, and when the pipe closes it ends the command: first with SIGNAL, after GRACE_MS milliseconds
with SIGKILL for the command's whole group. A SIGTERM to the leash does the same. If the leash itself is killed with -9,
Linux sends SIGNAL to the command (PR_SET_PDEATHSIG); elsewhere the part looks for orphans when it starts.

The command gets a session of its own, so that Ctrl-C in the terminal reaches the server only, which then ends its
children in order. If the command ends by itself, its status is the leash's status (128 + number for a signal).

`--not-root`: Postgres refuses to run as root, and rightly: it checks the effective user. Root therefore enters a user
namespace in which its own user number is mapped to an ordinary account's. Inside, geteuid() is that account and no
privilege over the machine is left; outside, files stay root's. No account is made and no permission is changed.
Rejected: setuid to `nobody`, which could not reach a data folder below /root, and would share its files with whatever
else runs as nobody.

Waiting is one select over the pipe and over signals (child ended, grace over, asked to end), which Python turns into
bytes of a second pipe. So nothing here polls. Only the standard library, and little of it, is imported: three of these
start on the way to the first page.
"""

import os
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

# The last line of the output is a sentence for the user: the command was never started.
REFUSED = 125
NOT_FOUND = 127

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
NO_NAMESPACE = (
    "Postgres does not run as root and this container forbids user namespaces: "
    "run WIRTHFORGE as an ordinary user or set DATABASE_URL."
)


def main(arguments: Sequence[str]) -> int:
    """Run the command until it ends or the pipe closes.

    Args:
        arguments: as in the module's docstring, without the program's name.

    Returns:
        The exit status: the command's, or REFUSED.
    """
    polite, grace_ms = signal.Signals[arguments[0]], int(arguments[1])
    command = list(arguments[2:])
    if command[0] == "--not-root":
        command.pop(0)
        if os.geteuid() == 0:
            _leave_root()
    wake = _signals_as_bytes()
    child = _start(command, polite)
    return _watch(child, wake, polite, grace_ms)


def _watch(child: int, wake: int, polite: signal.Signals, grace_ms: int) -> int:
    sources = [sys.stdin.fileno(), wake]
    ending = False
    while True:
        ready, _, _ = select.select(sources, [], [])
        happened = set(os.read(wake, 64)) if wake in ready else set()
        if signal.SIGCHLD in happened:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                # Whoever is left in its group has lost its leader.
                _kill_group(child)
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        if signal.SIGALRM in happened:
            _kill_group(child)
        # Nothing is ever written to the pipe: readable means closed.
        if not ending and (sys.stdin.fileno() in ready or signal.SIGTERM in happened):
            ending = True
            sources.remove(sys.stdin.fileno())
            os.kill(child, polite)
            signal.setitimer(signal.ITIMER_REAL, max(1, grace_ms) / 1000)


def _signals_as_bytes() -> int:
    """Let SIGCHLD, SIGALRM and SIGTERM arrive as bytes on the pipe that is returned; ignore the terminal."""
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for awaited in (signal.SIGCHLD, signal.SIGALRM, signal.SIGTERM):
        signal.signal(awaited, lambda *_: None)
    return read_end


def _start(command: list[str], polite: signal.Signals) -> int:
    """Fork and execute; returns the child's process id."""
    # Between fork and exec the child still has our signal machinery. A signal that comes then waits for the defaults.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    leash = os.getpid()
    child = os.fork()
    if child == 0:
        _execute(command, polite, leash)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    return child


def _execute(command: list[str], polite: signal.Signals, leash: int) -> NoReturn:
    try:
        os.setsid()
        _follow(leash, polite)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            # The C library keeps a few numbers for its own threads.
            with suppress(OSError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        os.execv(command[0], command)  # noqa: S606 (no shell is the point)
    except OSError as error:
        _say(f"{command[0]} cannot be run: {error.strerror}.")
    finally:
        os._exit(NOT_FOUND)


def _follow(leash: int, polite: signal.Signals) -> None:
    """Have the kernel send us `polite` when the leash dies, where the kernel can."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # noqa: PLC0415 (macOS needs none of it)

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(polite), 0, 0, 0)
    if os.getppid() != leash:
        os._exit(NOT_FOUND)


def _leave_root() -> None:
    """Enter a user namespace in which we are an ordinary account."""
    import ctypes  # noqa: PLC0415 (only for root)
    import pwd  # noqa: PLC0415 (only for root)

    ordinary = next((account for account in pwd.getpwall() if account.pw_uid != 0), None)
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if ordinary is None or not hasattr(libc, "unshare") or libc.unshare(CLONE_NEWUSER) != 0:
        _refuse()
    try:
        # The kernel demands this before a group map without privileges over the parent namespace.
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{ordinary.pw_uid} {user} 1")
        _write("/proc/self/gid_map", f"{ordinary.pw_gid} {group} 1")
    except OSError:
        _refuse()


def _write(path: str, text: str) -> None:
    # One write, as the kernel wants it for the maps.
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _refuse() -> NoReturn:
    _say(NO_NAMESPACE)
    sys.exit(REFUSED)


def _say(sentence: str) -> None:
    os.write(2, f"{sentence}\n".encode())


def _kill_group(child: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
