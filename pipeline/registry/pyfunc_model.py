"""The registered model as MLflow runs it: this file is stored with every version.

``predict`` takes a list of uint8 RGB images (H, W, 3) of any size, or a list of image URIs, and
returns one row per image in the same order. Nightshift must be installed where it is loaded.
"""

from typing import Any

import mlflow
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class NightshiftModel(PythonModel):
    """One category's detector behind MLflow's interface."""

    # "An array or a URI" is no type that MLflow could check; without this it says so at every load.
    _skip_type_hint_validation = True

    def load_context(self, context: PythonModelContext) -> None:
        """Load head, calibration and backbone."""
        from pipeline.registry.predictor import Predictor  # noqa: PLC0415  heavy; needed only to predict

        self.predictor = Predictor.load(context.artifacts["package"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: list[Any],
        params: dict[str, Any] | None = None,
    ) -> Any:
        """Return a DataFrame: status, error, score, p_value, flagged, threshold."""
        return self.predictor.predict(model_input)


mlflow.models.set_model(NightshiftModel())
