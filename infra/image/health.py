#!/usr/bin/env python3
"""Healthy: a container that runs a Ray node has a living raylet; any other is as well as it runs.

Knows no token and asks no network, so it never fails for another container's reasons.
"""

import sys
from pathlib import Path


def is_healthy(processes: Path) -> bool:
    """Look at the processes of this container."""
    first = (processes / "1" / "cmdline").read_bytes().split(b"\0")
    if b"start" not in first or not any(part.endswith(b"ray") for part in first):
        return True
    return any(_name(entry) == "raylet" for entry in processes.glob("[0-9]*"))


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:  # it has ended
        return ""


if __name__ == "__main__":
    sys.exit(0 if is_healthy(Path("/proc")) else 1)
