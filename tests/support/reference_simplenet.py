"""The published SimpleNet, written plainly and independently: an oracle and a benchmark baseline.

Deliberately naive, as the released code is: the whole backbone runs including layer4, all nine taps
are unfolded and interpolated, two adaptive poolings make the embedding, the head is not folded, the
feature map is upsampled to the image size (and thrown away), maps are smoothed by scipy one by one.
Nothing here imports Nightshift. Layers are named by number, 1 to 4; level maps come finest first.

Shapes: B images, H x W grid of the finest level, C channels, R = B H W rows in raster order.
Source: Liu et al. 2023 (arXiv:2303.15140) and what its released code computes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

Embedding = Callable[[Sequence[Tensor]], Tensor]  # level maps (B, C, H, W) -> (B, H, W, width)


def level_maps(resnet: nn.Module, images: Tensor, layers: Sequence[int] = (2, 3)) -> list[Tensor]:
    """Outputs of the chosen stages of a torchvision ResNet; the rest of it runs for nothing."""
    caught: dict[int, Tensor] = {}

    def catch(layer: int) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _module, _inputs, output: caught.__setitem__(layer, output)

    hooks = [
        getattr(resnet, f"layer{layer}")[-1].register_forward_hook(catch(layer)) for layer in layers
    ]
    resnet.eval()
    with torch.no_grad():
        resnet(images)
    for hook in hooks:
        hook.remove()
    return [caught[layer] for layer in layers]


def resize(planes: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(planes, size=tuple(size), mode="bilinear", align_corners=False)


def unfolded_planes(levels: Sequence[Tensor], patch: int = 3) -> list[Tensor]:
    """Every tap of every channel as a plane on the finest grid, each (B, C * patch^2, H, W).

    Channel-major: plane patch^2 * channel + patch * row + column. Zero padding.
    """
    planes = []
    for level in levels:
        taps = F.unfold(level, patch, padding=(patch - 1) // 2)
        planes.append(taps.unflatten(2, level.shape[-2:]))
    grid = planes[0].shape[-2:]
    return [planes[0], *(resize(other, grid) for other in planes[1:])]


def official_embedding(levels: Sequence[Tensor], width: int = 1536, patch: int = 3) -> Tensor:
    """What the released code computes: average to ``width`` per level, then once more over both."""
    rows = [
        planes.permute(0, 2, 3, 1).flatten(0, 2).contiguous()  # (R, C * patch^2)
        for planes in unfolded_planes(levels, patch)
    ]
    pooled = [F.adaptive_avg_pool1d(row.unsqueeze(1), width).squeeze(1) for row in rows]
    both = torch.stack(pooled, dim=1).flatten(1)  # (R, levels * width), finest level first
    embedded = F.adaptive_avg_pool1d(both.unsqueeze(1), width).squeeze(1)
    batch, _, height, breadth = levels[0].shape
    return embedded.view(batch, height, breadth, width)


def paper_embedding(levels: Sequence[Tensor], patch: int = 3) -> Tensor:
    """Equations 1 to 3: mean of a patch per channel (zeros count), resize, concatenate."""
    pooled = [F.avg_pool2d(level, patch, stride=1, padding=(patch - 1) // 2) for level in levels]
    grid = pooled[0].shape[-2:]
    return torch.cat([pooled[0], *(resize(p, grid) for p in pooled[1:])], 1).permute(0, 2, 3, 1)


class ReferenceHead(nn.Module):
    """Adaptor (one linear layer) and discriminator; a logit is positive where a patch is normal."""

    def __init__(self, width: int = 1536, hidden: int = 1024) -> None:
        super().__init__()
        self.adaptor = nn.Linear(width, width)
        self.discriminator = nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1, bias=False),
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)

    def forward(self, rows: Tensor) -> Tensor:
        """Logits, shape (R,), of embedded rows, shape (R, width)."""
        return self.discriminator(self.adaptor(rows)).squeeze(1)


@dataclass(frozen=True)
class Optimisers:
    adaptor: torch.optim.Optimizer
    discriminator: torch.optim.Optimizer


def official_optimisers(head: ReferenceHead) -> Optimisers:
    return Optimisers(
        torch.optim.AdamW(head.adaptor.parameters(), lr=1e-4, weight_decay=1e-2),
        torch.optim.Adam(head.discriminator.parameters(), lr=2e-4, weight_decay=1e-5),
    )


def paper_optimisers(head: ReferenceHead) -> Optimisers:
    return Optimisers(
        torch.optim.Adam(head.adaptor.parameters(), lr=1e-4, weight_decay=1e-5),
        torch.optim.Adam(head.discriminator.parameters(), lr=2e-4, weight_decay=1e-5),
    )


def margin_loss(normal: Tensor, noisy: Tensor, margin: float = 0.5) -> Tensor:
    return (margin - normal).clamp(min=0).mean() + (margin + noisy).clamp(min=0).mean()


def training_loss(head: ReferenceHead, rows: Tensor, noise: Tensor, margin: float = 0.5) -> Tensor:
    """Loss of one batch; normal and noisy rows (both (R, width)) share one batch normalisation."""
    head.train()
    adapted = head.adaptor(rows)
    logits = head.discriminator(torch.cat([adapted, adapted + noise])).squeeze(1)
    return margin_loss(logits[: len(rows)], logits[len(rows) :], margin)


def training_step(
    head: ReferenceHead, rows: Tensor, noise: Tensor, optimisers: Optimisers, margin: float = 0.5
) -> float:
    optimisers.adaptor.zero_grad()
    optimisers.discriminator.zero_grad()
    loss = training_loss(head, rows, noise, margin)
    loss.backward()
    optimisers.adaptor.step()
    optimisers.discriminator.step()
    return float(loss.detach())


@dataclass(frozen=True, kw_only=True)
class Schedule:
    passes: int = 160
    batch_size: int = 8
    sigma: float = 0.015  # standard deviation of the noise, absolute
    seed: int = 0


class ReferenceSimpleNet:
    """Images to scores and maps, and training that recomputes every feature in every pass."""

    def __init__(
        self,
        resnet: nn.Module,
        head: ReferenceHead,
        embedding: Embedding = official_embedding,
        layers: Sequence[int] = (2, 3),
    ) -> None:
        self.resnet, self.head, self.embedding, self.layers = resnet, head, embedding, layers

    def embed(self, images: Tensor) -> Tensor:
        return self.embedding(level_maps(self.resnet, images, self.layers))

    def fit(self, images: Tensor, schedule: Schedule, optimisers: Optimisers) -> list[float]:
        """Train on normalised good images (N, 3, S, S); mean loss of each pass."""
        generator = torch.Generator().manual_seed(schedule.seed)
        history = []
        for _ in range(schedule.passes):
            losses = []
            order = torch.randperm(len(images), generator=generator)
            for batch in order.split(schedule.batch_size):
                rows = self.embed(images[batch]).flatten(0, 2)
                noise = schedule.sigma * torch.randn(rows.shape, generator=generator)
                losses.append(training_step(self.head, rows, noise, optimisers))
            history.append(float(np.mean(losses)))
        return history

    def predict(
        self, images: Tensor, upsample_features: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores (B,) and smoothed maps (B, S, S) of normalised images (B, 3, S, S)."""
        return predict_embedded(self.head, self.embed(images), images.shape[-2:], upsample_features)


def patch_scores(head: ReferenceHead, embedded: Tensor) -> Tensor:
    """Anomaly score of each patch, (B, H, W), of an embedding (B, H, W, width)."""
    head.eval()
    with torch.no_grad():
        return -head(embedded.flatten(0, 2)).view(embedded.shape[:3])


def predict_embedded(
    head: ReferenceHead, embedded: Tensor, size: Sequence[int], upsample_features: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image score = highest raw patch score; map = upsampled, then smoothed patch scores."""
    scores = patch_scores(head, embedded)
    maps = resize(scores.unsqueeze(1), size).squeeze(1).numpy()
    if upsample_features:  # the released code does, and never looks at the result
        resize(embedded.permute(0, 3, 1, 2), size).numpy()
    smooth = np.stack([gaussian_filter(map_, sigma=4) for map_ in maps])
    return scores.flatten(1).amax(1).numpy(), smooth
