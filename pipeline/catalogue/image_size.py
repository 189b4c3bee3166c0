"""How a catalogue says what becomes of images: ``crop``, ``fit`` and what they are part of."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from model.preprocessing import Crop, Preprocessing

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
OF_A_CROP = ("crop", "resize", "fit")  # that say how a whole image becomes one input


def make_preprocessing(given: Any, preset: Preprocessing) -> Preprocessing:
    """Return how a category's images are read; what is not given is the preset's.

    Raises:
        ValueError: settings do not go together.
    """
    ways: dict[str, Any] = {
        "pixel_range": given.pixel_range,
        "pages": given.pages,
        "max_pixels": given.max_pixels,
    }
    if given.zones.is_set:
        ways |= {"roi": given.zones.roi, "drawn_on": given.zones.size}
    if given.tiles is not None:
        _refuse_settings_of_a_crop(given)
        return Preprocessing(crop=given.tiles.size, fit="stretch", tiles=given.tiles, **ways)
    if given.fit == "keep" and isinstance(given.crop, tuple):
        raise ValueError("fit: keep finds the proportions; crop is the side of a square")
    return Preprocessing(
        resize=given.resize or preset.resize,
        crop=given.crop or preset.crop,
        fit="pad" if given.fit == "keep" else given.fit or preset.fit,
        **ways,
    )


def _refuse_settings_of_a_crop(given: Any) -> None:
    found = [name for name in OF_A_CROP if getattr(given, name) is not None]
    if found:
        raise ValueError(
            f"tiles: images are cut at their own scale, which {', '.join(found)} would change; "
            f"leave {'it' if len(found) == 1 else 'them'} out, or take tiles.scale"
        )
