"""Champions of which only what they decide by is real: their packages are nowhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from model.preprocessing import Preprocessing
from pipeline.calibration import CalibrationConfig, fit
from pipeline.night.fleet.fleet import Champion
from pipeline.package import MapScale, Reference


def made_up_champion(
    category: str,
    scores: ArrayLike,
    config: CalibrationConfig,
    *,
    statistics: Mapping[str, Sequence[float]] | None = None,
    **changes: Any,
) -> Champion:
    """A champion that is calibrated on these scores."""
    reference = Reference(
        calibration=fit(scores, config),
        map_scale=MapScale(low=0.0, threshold=1.0),
        statistics=statistics or {},
    )
    known = {"model_version": "1", "model_digest": "d" * 64, "preprocessing": Preprocessing()}
    return Champion(
        category=category,
        model_name=f"nightshift.{category}",
        package="nowhere",
        reference=reference,
        **(known | changes),
    )
