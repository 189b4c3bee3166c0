"""Which weights a backbone has: an address, and the digest that the file there must have."""

from typing import Annotated, Any

from pydantic import StringConstraints

from pipeline.catalogue.addresses import WeightsAddress
from pipeline.catalogue.detector_settings import Strict


class WeightsFile(Strict):
    """A backbone's weights with the sha256 they must have."""

    uri: WeightsAddress
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")] | None = None


def as_weights_file(given: Any) -> Any:
    """Let a plain URI stand for a weights file."""
    return {"uri": given} if isinstance(given, str) else given
