"""What a look at something came to: PASS, WARN or FAIL, what was found, and how to mend it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """FAIL: it cannot stay so. WARN: it can, but less well or not for long."""

    PASS = "PASS"  # noqa: S105  not a password
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one look came to."""

    name: str
    verdict: Verdict
    finding: str
    advice: str = ""  # how to mend it; empty for PASS


def passed(name: str, finding: str) -> Check:
    """Nothing to do."""
    return Check(name=name, verdict=Verdict.PASS, finding=finding)


def warned(name: str, finding: str, advice: str) -> Check:
    """It works, but."""
    return Check(name=name, verdict=Verdict.WARN, finding=finding, advice=advice)


def failed(name: str, finding: str, advice: str) -> Check:
    """It does not work."""
    return Check(name=name, verdict=Verdict.FAIL, finding=finding, advice=advice)


def worst(checks: Iterable[Check]) -> Verdict:
    """The verdict on all of them."""
    order = list(Verdict)
    return max((check.verdict for check in checks), key=order.index, default=Verdict.PASS)
