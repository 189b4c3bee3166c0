"""What computes pooled features on a GPU for a night: whole batches in a CUDA graph.

A graph is a stream of kernels without Python between them, captured once for each size of image.
Every batch has the same number of images, the last one filled up, so that all meet the same
kernels. Where a night is long enough to pay for it the network is compiled first, which fuses what
lies between its convolutions. Pixels are copied from pinned memory on a stream of their own while
another batch is computed. Where a graph cannot be captured or the network not be compiled, PyTorch
computes step by step, and the log says so.

Shapes: B images, H x W pixels, C channels of a level, h x w its grid.
"""

import logging
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from model.backbone import Backbone
from model.embedding import Embedding

WARM_UP = 3  # passes before a graph is captured, in which kernels are chosen

Pool = Callable[[Tensor], Sequence[Tensor]]  # uint8 (B, H, W, 3) -> (B, C, h, w) a level

logger = logging.getLogger(__name__)


class GpuEngine:
    """A backbone and its pooling on a GPU; many threads may use it."""

    def __init__(self, backbone: Backbone, embedding: Embedding, *, compiles: bool) -> None:
        """Take a backbone that is on the GPU, and whether it is worth to be compiled."""
        self._network, self._compiles = _Pooled(backbone, embedding), compiles
        self._backbone = backbone
        self._graphs: dict[tuple[int, ...], Pool] = {}
        self._lock = threading.Lock()  # of what is put on the stream together

    @torch.inference_mode()
    def __call__(self, images_BHWC: Tensor, batch: int) -> Sequence[Tensor]:
        """Return pooled levels of at most ``batch`` images, (B, C, h, w) each, on the GPU.

        Raises:
            PrecisionError: the device does not have the numeric mode.
        """
        count = len(images_BHWC)
        self._backbone.admit(count)
        filled = filled_up(images_BHWC, batch)
        moved = _moved(filled, self._backbone.mean.device)
        with self._lock:
            key = tuple(moved.shape)
            if key not in self._graphs:
                self._graphs[key] = self._prepared(moved)
            return [level[:count] for level in self._graphs[key](moved)]

    def _prepared(self, images: Tensor) -> Pool:
        if self._compiles:
            try:
                return _captured(torch.compile(self._network), images)
            except Exception as error:  # noqa: BLE001  whatever it is, there are other ways
                _say("be compiled", error)
        try:
            return _captured(self._network, images)
        except RuntimeError as error:
            _say("be captured in a CUDA graph", error)
            return self._network


class _Pooled(nn.Module):
    def __init__(self, backbone: Backbone, embedding: Embedding) -> None:
        super().__init__()
        self.backbone, self.embedding = backbone, embedding

    def forward(self, images_BHWC: Tensor) -> list[Tensor]:
        return self.embedding.pool(self.backbone.levels(images_BHWC))


def filled_up(images_BHWC: Tensor, batch: int) -> Tensor:
    """Return ``batch`` images: these, and the first one as often as it takes."""
    missing = batch - len(images_BHWC)
    if missing <= 0:
        return images_BHWC
    return torch.cat([images_BHWC, images_BHWC[:1].expand(missing, -1, -1, -1)])


def _moved(images_BHWC: Tensor, device: torch.device) -> Tensor:
    """Copy images while the GPU computes others; the current stream waits for them."""
    if images_BHWC.device == device:
        return images_BHWC
    copying = torch.cuda.Stream(device)
    with torch.cuda.stream(copying):
        moved = images_BHWC.pin_memory().to(device, non_blocking=True)
    current = torch.cuda.current_stream(device)
    current.wait_stream(copying)
    moved.record_stream(current)
    return moved


def _captured(network: Pool, images: Tensor) -> Pool:
    """Return a replay of one pass; what it returns is the caller's own."""
    entry = images.clone()
    stream = torch.cuda.Stream(images.device)
    stream.wait_stream(torch.cuda.current_stream(images.device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            network(entry)
    torch.cuda.current_stream(images.device).wait_stream(stream)
    torch.cuda.synchronize(images.device)
    graph = torch.cuda.CUDAGraph()
    # Other threads copy pixels meanwhile, which the strictest mode would take for a mistake.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        levels = network(entry)

    def replay(pixels: Tensor) -> Sequence[Tensor]:
        entry.copy_(pixels)
        graph.replay()
        return [level.clone() for level in levels]

    return replay


def _say(what: str, error: Exception) -> None:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    logger.warning("the network cannot %s on this GPU, scoring is slower: %s", what, reason[0])
