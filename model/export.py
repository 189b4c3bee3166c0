"""A detector as one graph of tensor operations, for runtimes that know neither it nor PyTorch.

Shapes: N images, H x W pixels of the crop.
"""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from model.anomaly_map import anomaly_maps
from model.detector import Detector, DetectorFileError


class _Network(nn.Module):
    """``Detector.forward`` and ``Detector.maps`` in one."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images_NHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Return image scores (N,) and anomaly maps (N, H, W) of uint8 RGB images."""
        detector = self.detector
        pooled = detector.header.embedding.pool(detector.backbone.levels(images_NHWC))
        scores, patch_scores = detector.heads(pooled)
        return scores, anomaly_maps(patch_scores, detector.rows, detector.columns)


def trace(detector: Detector) -> ExportedProgram:
    """Return the graph from uint8 RGB images (N, H, W, 3) to scores (N,) and maps (N, H, W).

    N is free; H and W are the detector's crop. Pooled features are rounded to half precision in
    the graph as they are in the detector, so the scores of both agree.

    Raises:
        DetectorFileError: the detector cuts images into tiles.
    """
    if detector.header.preprocessing.tiles is not None:
        raise DetectorFileError(
            "a detector with tiles cuts images of any size, which no single graph does; export a "
            "category without `tiles`"
        )
    height, width = detector.header.preprocessing.size
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)  # one alone would fix N to 1
    free_batch = ({0: Dim("N")},)
    return torch.export.export(_Network(detector), (example,), dynamic_shapes=free_batch)
