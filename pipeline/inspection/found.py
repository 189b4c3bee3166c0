"""What a check found in a category's images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.checks import Check, Verdict, passed


@dataclass(frozen=True, kw_only=True)
class Found:
    """One image that a check is about."""

    uri: str
    because: str  # what sets it apart, in a few words with numbers
    beside: str | None = None  # the image to look at beside it: its copy, its nearest good one


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one check came to, and the images it is about, worst first."""

    check: Check
    images: Sequence[Found] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self.check) | {"images": [asdict(found) for found in self.images]}


def line_of(
    name: str, found: Sequence[Found], what: str, advice: str, verdict: Verdict = Verdict.WARN
) -> Line:
    """Return the line of a check that found these images, the worst first, or none."""
    if not found:
        return Line(check=passed(name, f"no {what}"))
    first = found[0]
    beside = f" beside {first.beside}" if first.beside else ""
    finding = f"{what}: {len(found)}, first of {first.uri}{beside} ({first.because})"
    check = Check(name=name, verdict=verdict, finding=finding, advice=advice)
    return Line(check=check, images=tuple(found))
