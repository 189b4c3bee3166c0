"""What the gate said of one challenger."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.promotion.evidence import Evidence
from pipeline.promotion.gate_verdict import GateVerdict, Judgement


@dataclass(frozen=True, kw_only=True)
class GateAnswer:
    """What the gate said of a challenger, and what was done."""

    category: str
    verdict: GateVerdict
    reason: str
    champion: str | None  # version
    challenger: str
    promoted: bool
    look: int = 1
    margin: float | None = None
    evidence: Evidence | None = None
    judgement: Judgement | None = None
    cost: dict[str, dict[str, float]] | None = None
    page: str | None = None  # address

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return json.loads(json.dumps(asdict(self), default=str))  # type: ignore[no-any-return]
