"""The detectors of a fleet in one process: each backbone once, heads as long as there is room."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from model.anomaly_map import anomaly_maps, map_matrix
from model.backbone import Backbone, BackboneConfig
from model.detector import Detector, DetectorHeader, refuse_other_backbone
from model.embedding import Embedding
from model.errors import CategoryFault, NightshiftError
from model.gpu_engine import GpuEngine
from model.kind import Heads, Images
from model.mixed_batch import score_inputs, score_together
from pipeline.backbones import fetch_backbone
from pipeline.engine_check import refuse_other_engine
from pipeline.images.batches import BATCH_IMAGES
from pipeline.night.fleet.fleet import Champion
from pipeline.storage import StorageError

HEADS_BYTES = 3_500_000_000
GPU_BATCH_IMAGES = 64


@dataclass(frozen=True)
class Network:
    """What images must share to go through the backbone together."""

    backbone: BackboneConfig
    size: tuple[int, int]  # of an image, pixels
    embedding: Embedding


class Detectors:
    """Scores mixed batches; loads what it needs when it is first asked, from many threads.

    A category whose heads, backbone, precision or engine are no good here is refused again at once.

    Beyond ``heads_bytes`` the heads that were not used for longest make room: a dump is scored
    category by category, so that they are rarely missed.
    """

    def __init__(
        self,
        champions: Mapping[str, Champion],  # by category
        device: str = "cpu",
        heads_bytes: int = HEADS_BYTES,
        *,
        compiles: bool = False,
    ) -> None:
        """Take champions by category and, for a GPU, whether networks are worth to be compiled."""
        self.champions, self.device, self.heads_bytes = champions, device, heads_bytes
        self.batch_images = BATCH_IMAGES if device == "cpu" else GPU_BATCH_IMAGES
        self._compiles = compiles
        self._engines: dict[Network, GpuEngine] = {}
        self._headers: dict[str, DetectorHeader] = {}
        self._heads: OrderedDict[str, Heads] = OrderedDict()  # used longest ago first
        self._resident_bytes = 0
        self._backbones: dict[BackboneConfig, Backbone] = {}
        self._lock = threading.RLock()
        self._gates: dict[str, threading.Lock] = {}  # one thread fetches a category's heads
        self._refused: dict[str, NightshiftError] = {}  # categories that cannot be scored here

    def network(self, category: str) -> Network:
        """Say with whom a category's images may share a batch."""
        header = self._header(category)
        return Network(header.backbone_config, header.preprocessing.size, header.embedding)

    @torch.inference_mode()
    def score(self, categories: Sequence[str], images_BHWC: Images) -> tuple[Tensor, Tensor]:
        """Return image scores (B,) and patch scores (B, h, w).

        On a CPU an image has the same bits in whatever batch and on however many cores
        (``model/thread_pool.py``); on a GPU they are those of the device and the batch.

        Args:
            categories: the category of each image, sorted; all of one network.
            images_BHWC: their pixels, uint8. Images that are cut into tiles are all of one
                category.
        """
        network = self.network(categories[0])
        heads_B = [self.heads(category) for category in categories]
        score = partial(self._score, network)
        return heads_B[0].score_pixels(heads_B, images_BHWC, score, self.batch_images)

    def _score(
        self, network: Network, heads_B: Sequence[Heads], inputs_BHWC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what ``score`` does, of what the network sees."""
        backbone = self.backbone(network.backbone)
        if backbone.is_on_cpu:
            return score_inputs(backbone, network.embedding, heads_B, inputs_BHWC)
        return score_together(heads_B, self._engine(network)(inputs_BHWC, self.batch_images))

    @torch.inference_mode()
    def maps(self, category: str, patch_scores_Bhw: Tensor) -> Tensor:
        """Return anomaly maps (B, H, W) at the size of the crop, or the view of a tiled image."""
        header = self._header(category)
        matrices = map(_map_matrix, header.grid, header.preprocessing.view)
        rows, columns = (matrix.to(patch_scores_Bhw.device) for matrix in matrices)
        return anomaly_maps(patch_scores_Bhw, rows, columns)

    def heads(self, category: str) -> Heads:
        """Return a category's heads, on the device."""
        with self._lock:
            if category in self._heads:
                self._heads.move_to_end(category)
                return self._heads[category]
        return self._load(category)[1]

    def backbone(self, config: BackboneConfig) -> Backbone:
        """Return a backbone, on the device."""
        with self._lock:
            if config not in self._backbones:
                self._backbones[config] = fetch_backbone(config).to(self.device)
            return self._backbones[config]

    def _engine(self, network: Network) -> GpuEngine:
        """Return what computes a network's features on a GPU."""
        with self._lock:
            if network not in self._engines:
                backbone = self.backbone(network.backbone)
                self._engines[network] = GpuEngine(
                    backbone, network.embedding, compiles=self._compiles
                )
            return self._engines[network]

    def _header(self, category: str) -> DetectorHeader:
        with self._lock:
            if category in self._headers:
                return self._headers[category]
        return self._load(category)[0]

    def _load(self, category: str) -> tuple[DetectorHeader, Heads]:
        """Fetch heads; whoever scores goes on meanwhile, whoever wants the same ones waits."""
        with self._lock:
            gate = self._gates.setdefault(category, threading.Lock())
        with gate:
            with self._lock:
                if category in self._heads:
                    return self._headers[category], self._heads[category]
                if category in self._refused:
                    raise self._refused[category]
            try:
                header, heads = self._fetch(category)
            except (CategoryFault, StorageError) as error:
                self._refused[category] = error  # it will not be better for the next image
                raise
            with self._lock:
                self._headers[category], self._heads[category] = header, heads
                self._resident_bytes += _size_bytes(heads)
                self._make_room()
        return header, heads

    def _fetch(self, category: str) -> tuple[DetectorHeader, Heads]:
        champion = self.champions[category]
        header, heads = champion.load_heads()
        backbone = self.backbone(header.backbone_config)
        refuse_other_backbone(backbone, header)
        heads.halve()
        heads = heads.to(self.device)
        check, calibration = champion.reference.check, champion.reference.calibration
        if check and check.engine != backbone.engine(header.preprocessing.size):
            images = champion.load_check_images()
            if images is not None:
                refuse_other_engine(Detector(backbone, heads, header), check, images, calibration)
        return header, heads

    def _make_room(self) -> None:
        while self._resident_bytes > self.heads_bytes and len(self._heads) > 1:
            _, evicted = self._heads.popitem(last=False)
            self._resident_bytes -= _size_bytes(evicted)


@cache
def _map_matrix(grid: int, pixels: int) -> Tensor:
    return map_matrix(grid, pixels)


def _size_bytes(heads: Heads) -> int:
    return sum(value.numel() * value.element_size() for value in heads.state_dict().values())
