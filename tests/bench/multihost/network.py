"""Hosts made of network namespaces, joined by a bridge that lies in a namespace of its own.

Nothing of it touches the machine's own network, and removing the namespaces removes it all.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

SUBNET = "10.77.0"
HOSTS = {"stores": 10, "head": 20, "worker-a": 31, "worker-b": 32}  # last part of the address


@dataclass(frozen=True)
class Network:
    """One network; its name sets it apart from another run's."""

    name: str

    def address(self, host: str) -> str:
        """Return a host's address."""
        return f"{SUBNET}.{HOSTS[host]}"

    def namespace(self, host: str) -> str:
        """Return the namespace that is this host."""
        return f"{self.name}-{host}"

    def inside(self, host: str) -> list[str]:
        """Return what to put before a command for it to run on this host."""
        return ["ip", "netns", "exec", self.namespace(host)]

    def make(self) -> None:
        """Make the bridge and all hosts."""
        switch = self.namespace("switch")
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "bridge0", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "bridge0", "up")
        for host, number in HOSTS.items():
            space = self.namespace(host)
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
            port = f"port{number}"
            run(
                "ip",
                "-n",
                switch,
                "link",
                "add",
                port,
                "type",
                "veth",
                "peer",
                "eth0",
                "netns",
                space,
            )
            run("ip", "-n", switch, "link", "set", port, "master", "bridge0", "up")
            run("ip", "-n", space, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")
            # To nowhere: by its default route a process learns its host's address. Without one Ray
            # takes that of the host name, which is all hosts' own, and so another host for its own.
            run("ip", "-n", space, "route", "add", "default", "dev", "eth0")

    def cut(self, host: str, connected: bool = False) -> None:
        """Unplug a host's cable, or plug it in again."""
        state = "up" if connected else "down"
        switch = self.namespace("switch")
        run("ip", "-n", switch, "link", "set", f"port{HOSTS[host]}", state)

    def processes(self, host: str) -> list[int]:
        """Return every process of a host."""
        listed = run("ip", "netns", "pids", self.namespace(host))
        return [int(pid) for pid in listed.split() if int(pid) != os.getpid()]

    def power_off(self, host: str) -> int:
        """Kill all that runs on a host, at once; return how many processes that were."""
        killed = self.processes(host)
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(killed)

    def remove(self) -> None:
        """Power every host off and remove all that ``make`` made."""
        for host in (*HOSTS, "switch"):
            with suppress(subprocess.CalledProcessError):
                self.power_off(host)
                run("ip", "netns", "delete", self.namespace(host))


def run(*command: str) -> str:
    """Run one command of iproute2 and return what it says."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


def missing(arguments: Sequence[str] = ("ip", "netns", "add")) -> str | None:
    """Return why this machine cannot be several hosts, or None: it can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    name = f"ns{os.getpid()}-probe"
    try:
        run(*arguments, name)
        try:
            run("ip", "-n", name, "link", "add", "bridge0", "type", "bridge")
            run("ip", "-n", name, "link", "add", "port0", "type", "veth", "peer", "eth0")
        finally:
            run("ip", "netns", "delete", name)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return f"network namespaces cannot be made here: {said.strip()}"
    return None
