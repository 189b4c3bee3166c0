"""Where a feature store lies and how large it may be."""

from collections.abc import Mapping
from dataclasses import dataclass

from model.errors import NightshiftError

GB = 10**9
DEFAULT_GB = 50.0


class NoFeatureStore(NightshiftError):
    """A command that is about the feature store, and none is named."""


@dataclass(frozen=True, kw_only=True)
class StorePlace:
    """A folder or prefix that every node of a cluster reaches."""

    uri: str
    max_gb: float = DEFAULT_GB  # 10^9 bytes; beyond it what was used least recently goes

    @property
    def max_bytes(self) -> int:
        """The bound in bytes."""
        return int(self.max_gb * GB)


def in_words(counts: Mapping[str, int]) -> str:
    """Say how much of what was embedded came from the store."""
    return f"features: {counts['from_store']:,} of {counts['images']:,} images from the store"


def named_place(features: str | None, max_gb: float = DEFAULT_GB) -> StorePlace | None:
    """Return the store that a user named; None: there is none."""
    if not features:
        return None
    from pipeline import storage  # noqa: PLC0415  a command line that only helps is fast

    return StorePlace(uri=storage.absolute(features), max_gb=max_gb)


def required_place(features: str | None, max_gb: float = DEFAULT_GB) -> StorePlace:
    """Return the store that a user named.

    Raises:
        NoFeatureStore: there is none.
    """
    place = named_place(features, max_gb)
    if place is None:
        raise NoFeatureStore(
            "no feature store is named; set NIGHTSHIFT_FEATURES to its folder or s3:// prefix, or "
            "give --features"
        )
    return place
