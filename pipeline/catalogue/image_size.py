"""How a catalogue says what size images get: ``crop`` and ``fit``."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from model.preprocessing import Crop

FitSetting = Literal["crop", "stretch", "pad", "keep"]


def _as_crop(given: Any) -> Any:
    """Say in one line what is expected, where each part of a union would say its own."""
    match given:
        case None | int() if not isinstance(given, bool):
            return given
        case [int() as height, int() as width]:
            return height, width
    raise ValueError("expected the pixels of a square's side, or [height, width]")


CropSetting = Annotated[Crop | None, BeforeValidator(_as_crop)]
