"""Refuse an image whose Nightshift brings more than its own import names, or shares one."""

import importlib.metadata
import sys

OURS = {"model", "pipeline", "jobs"}


def main() -> int:
    """Compare what was installed with what should be."""
    files = importlib.metadata.files("nightshift") or []
    brought = {file.parts[0] for file in files if file.parts[0] != ".."}
    foreign = {name for name in brought - OURS if not name.endswith(".dist-info")}
    owners = importlib.metadata.packages_distributions()
    shared = {name: owners.get(name) for name in OURS if owners.get(name) != ["nightshift"]}
    if foreign or shared:
        print(f"brought along: {sorted(foreign)}; not ours alone: {shared}")  # noqa: T201
        return 1
    print(f"only {', '.join(sorted(OURS))}, and nobody else's")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
