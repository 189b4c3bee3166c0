"""A finished RealNet: pooled levels in, image scores and patch scores out.

Which channel ranks where jumps with the last bits of its residuals. So that an image's score does
not depend on its company, on a CPU every image is computed alone, as the backbone does.

Shapes: B images, C channels of a level, h x w its grid; g x g the finest grid.
Source: RealNet, Zhang et al. 2024 (arXiv:2403.05897), section 3.5, and its release: an image scores
as its worst square of 16 x 16 pixels in 256. Ours: logits are averaged, which do not saturate.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.kind import Heads, join_batches
from model.realnet.network import RealNet
from model.realnet.structure import Structure
from model.thread_pool import map_threads

SQUARES = (
    14  # of an image's shorter side: how many of the squares it is scored by lie beside each other
)
NETWORK = "network."


class RealNetHeads(Heads):
    """Selected channels, standardised, and the network that reads them."""

    structure: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Take tensors by name.

        Args:
            tensors: structure, see ``Structure``; index0, mean0, scale0, index1, ...: (K,) each, of
                the channels selected of a level; network.*: what ``folded_state`` gave.

        Raises:
            ValueError, KeyError: they do not fit each other.
        """
        super().__init__()
        own = {name: value for name, value in tensors.items() if not name.startswith(NETWORK)}
        for name, value in own.items():
            self.register_buffer(name, value)
        self.num_levels = sum(name.startswith("index") for name in own)
        state = {n.removeprefix(NETWORK): v for n, v in tensors.items() if n.startswith(NETWORK)}
        self.network = read_network(self.channels, Structure.from_tensor(self.structure), state)

    @property
    def channels(self) -> list[int]:
        """How many channels of each level are selected."""
        return [len(self.get_buffer(f"index{level}")) for level in range(self.num_levels)]

    def in_float32(self) -> "RealNetHeads":
        """Return the same heads with matrices in float32."""
        tensors = {name: value.float() for name, value in self.state_dict().items()}
        return RealNetHeads(tensors).with_zones(self.zones)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return image scores (B,) and patch scores (B, g, g), logits."""
        if next(self.network.buffers()).dtype == torch.half:
            return self.in_float32().forward(levels)
        if torch.compiler.is_exporting() or not levels[0].is_cpu or len(levels[0]) == 1:
            return self._score(levels)
        images = zip(*(level.split(1) for level in levels), strict=True)
        return join_batches(map_threads(self._score, images))

    def _score(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        selected = [
            (level[:, self.get_buffer(f"index{number}").long()] - self._column("mean", number))
            * self._column("scale", number)
            for number, level in enumerate(pool_finest(levels, self.network.structure.pool))
        ]
        _, logits = self.network(selected)
        patch_scores = _on_grid(logits, levels[0].shape[2:])
        side = max(min(patch_scores.shape[1:]) // SQUARES, 1)
        squares = self.zones.mean_squares(patch_scores, side)
        scores = self.zones.of_squares(side).highest(squares)
        return scores, self.zones.filled(patch_scores)

    def _column(self, name: str, level: int) -> Tensor:
        return self.get_buffer(f"{name}{level}")[:, None, None]


def pool_finest(levels: Sequence[Tensor], pool: int) -> list[Tensor]:
    """Return the levels in float32, squares of ``pool`` positions of the finest one averaged."""
    finest, *coarser = (level.float() for level in levels)
    divides = finest.shape[2] % pool == 0 and finest.shape[3] % pool == 0
    return [F.avg_pool2d(finest, pool) if pool > 1 and divides else finest, *coarser]


def folded_state(network: RealNet) -> dict[str, Tensor]:
    """Return a trained network's tensors, its normalisation folded, matrices rounded to half."""
    network.decoder.fold()
    return {
        name: value.half().float() if value.dim() > 1 else value.float()
        for name, value in network.state_dict().items()
    }


def read_network(
    channels: Sequence[int], structure: Structure, state: Mapping[str, Tensor]
) -> RealNet:
    """Return the network of a folded state, its parameters buffers.

    Raises:
        ValueError: the state is another network's.
    """
    with torch.device("meta"):
        network = RealNet(channels, structure, folded=True)
    try:
        network.load_state_dict(dict(state), assign=True)
    except RuntimeError as error:
        raise ValueError(f"no network of {list(channels)} channels: {error}") from error
    for module in list(network.modules()):
        for name, value in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, value.detach())
    return network.eval()


def _on_grid(logits_BHW: Tensor, grid: Sequence[int]) -> Tensor:
    """Return logits on another grid, as coarse or coarser by a whole number."""
    step = logits_BHW.shape[1] // grid[0]
    return F.avg_pool2d(logits_BHW, step) if step > 1 else logits_BHW
