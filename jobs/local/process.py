"""Servers on this machine: on free ports, each in a session of its own, and ended as a whole."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from model.errors import NightshiftError

HOST = "127.0.0.1"
# Below the range that systems hand out to outgoing connections, so that none takes a port first.
PORT_RANGE = range(12_000, 32_000)
# Runs between fork and exec in a fresh interpreter (safe beside threads): asks Linux to kill the
# server when whoever started it dies, even by SIGKILL.
DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class NoFreePortError(NightshiftError):
    """This machine has no port left for a local server."""


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback address that nobody listens on right now."""
    ports: list[int] = []
    with ExitStack() as held:  # held together, so that no port is given twice
        for port in random.SystemRandom().sample(PORT_RANGE, len(PORT_RANGE)):
            if len(ports) == count:
                return ports
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((HOST, port))
                ports.append(port)
            except OSError:
                probe.close()
    raise NoFreePortError(
        f"{HOST} has {len(ports)} free ports from {PORT_RANGE.start} to {PORT_RANGE.stop - 1}, "
        f"{count} are needed. Stop some of the servers on this machine."
    )


def start(
    command: Sequence[str],
    home: Path,
    environment: Mapping[str, str],
    log: Path,
    user: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, perhaps as another user; ``log`` has what it says."""
    with log.open("wb") as file:
        return subprocess.Popen(  # noqa: S603 (a program that the caller found, no shell)
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
        )


def stop(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """End the process and all that it started: politely, and after ``patience_s`` for good."""
    signal_group(process, signal.SIGTERM)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        signal_group(process, signal.SIGKILL)
        process.wait(patience_s)


def bound_to_this_process(command: Sequence[str]) -> list[str]:
    """Return a command that on Linux is killed when the calling thread ends, however that happens.

    Start it from a thread that outlives its use. Elsewhere a killed parent leaves it running.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *command]


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the process's own group, unless it has ended already."""
    if process.poll() is None:
        os.killpg(process.pid, number)
