"""Which Nightshift this is."""

import importlib.metadata


def version() -> str:
    """Return the installed version; ``unknown`` in a checkout that is not installed."""
    try:
        return importlib.metadata.version("nightshift")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
