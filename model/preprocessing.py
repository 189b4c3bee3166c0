"""What a network expects to see: one square RGB crop per image."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Shorter side to ``resize`` pixels (bilinear, antialiased), then the central square crop."""

    resize: int = 256  # pixels, shorter side
    crop: int = 224  # pixels, side of the square; a multiple of 32

    def __post_init__(self) -> None:
        if not 32 <= self.crop <= self.resize:
            raise ValueError(f"crop must lie in [32, resize={self.resize}], got {self.crop}")
        if self.crop % 32:
            raise ValueError(f"crop must be a multiple of 32, got {self.crop}")
        if self.resize > 4096:
            raise ValueError(f"resize must be at most 4096, got {self.resize}")
