"""What a kind of detector is: everything that the pipeline asks of one, SimpleNet or another.

A kind fits heads to a bank of good images' features and reads them from a file again. Whoever
scores, stores, calibrates or reports knows heads and trainers by these classes only; which kinds
there are says ``kinds.py``.

Shapes: B images, N good images, C channels of a level, h x w its grid.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from model.embedding import EmbeddingKind
from model.feature_bank import FeatureBank
from model.preprocessing import Preprocessing


class Heads(nn.Module):
    """Everything that one category adds to the shared backbone.

    Its state are buffers; those with two dimensions or more are rounded to half precision before
    anything is scored, so that a file, which holds halves, scores exactly as they do.
    """

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return image scores (B,) and patch scores (B, h, w) on the finest grid.

        Args:
            levels: one (B, C, h, w) map per level, as ``Embedding.pool`` gives them.
        """
        raise NotImplementedError

    def in_float32(self) -> "Heads":
        """Return the same heads with matrices in float32: to be had once for many images."""
        raise NotImplementedError

    @property
    def stored_bytes(self) -> int:
        """Size in a file: matrices in half precision, the rest in float32."""
        return sum(v.numel() * (2 if v.dim() > 1 else 4) for v in self.state_dict().values())

    def halve(self) -> None:
        """Hold the matrices in half precision, for many heads to stay in memory.

        What is rounded already scores the same to the bit: nothing is computed in half precision.
        """
        for module in self.modules():
            for name, value in list(module.named_buffers(recurse=False)):
                if value.dim() > 1:
                    module.register_buffer(name, value.half())


class Trainer(Protocol):
    """Heads on their way from nothing to fitted; its whole state can be saved and restored."""

    recipe: Any

    @property
    def num_passes(self) -> int:
        """Steps of a whole fit, each a point of the curve."""

    @property
    def reports(self) -> list[tuple[str, Any]]:
        """What every finished pass did, a dataclass of numbers, with the head that it was for."""

    def run(self) -> Iterator[Any]:
        """Make the passes that are left; may be stopped between any two of them."""

    def folded(self) -> Heads:
        """Return the heads as they stand, rounded to what is stored."""

    def unseen(self, heads: Heads) -> Iterator[tuple[Heads, Tensor]]:
        """Yield heads with good images that they have not seen, a few at a time, each once."""

    def health(self) -> dict[str, float]:
        """Return by name what tells a sound fit from a broken one."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything a restart needs: tensors, numbers and plain containers only."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict`` of a trainer with the same bank, images and recipe."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A recipe with a name, and the images and features it is meant for."""

    recipe: Any
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    embedding_kind: EmbeddingKind = "paper"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of detector."""

    presets: Mapping[str, Preset]
    # Of a bank, the images (N,) to fit to, the fold (N,) that leaves each out, and a recipe.
    make_trainer: Callable[[FeatureBank, Tensor, Tensor, Any], Trainer]
    # Of a file's tensors in float32, and the channels of each level. Raises ValueError, KeyError.
    read_heads: Callable[[Mapping[str, Tensor], Sequence[int]], Heads]
