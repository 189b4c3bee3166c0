"""What computes float32 and int8 backbones on CPUs: OpenVINO, one request an image on one thread.

The graph is compiled for one image, so that an image meets the same kernels in the same order
whatever its company: its bits are its own by construction, as in ``thread_pool.py``. OpenVINO was
chosen over onnxruntime by measuring both (``model/README.md``), and is to compute in float32: of
itself it would round to bfloat16 where a processor is faster in it. Where it is not to be had,
PyTorch computes float32, and the log says so; int8 is then refused.

Shapes: H x W pixels of an image, C channels of a level, h x w its grid.
"""

import logging
import sys
import threading
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

OPENVINO, PYTORCH = "OpenVINO", "PyTorch"  # the names of engines
KEPT_NETWORKS = 2  # of a process, whoever holds them; a category's backbone is loaded many times
KEPT_SIZES = 8  # compiled graphs of one network
TRACED = (1, 64, 64, 3)  # an image of any size: the graph depends on none

ForOneImage = Callable[[Tensor], list[Tensor]]  # uint8 (1, H, W, 3) -> (1, C, h, w) a level

logger = logging.getLogger(__name__)
_loading = threading.Lock()
_loaded: "OrderedDict[str, CpuEngine | None]" = OrderedDict()  # used longest ago first


class CpuEngine:
    """A network in OpenVINO, compiled for the sizes of images that it is asked for."""

    def __init__(self, network: nn.Module) -> None:
        """Translate ``network``: uint8 (1, H, W, 3) to one (1, h, w, C) map per level."""
        self._model, self._core = _translate(network)
        self._compiled: OrderedDict[tuple[int, int, int], _Requests] = OrderedDict()

    def compiled(self, size: Sequence[int]) -> ForOneImage:
        """Return what computes an image of a height and width, from any thread.

        As many images are computed at a time as the calling thread may use threads in torch.
        """
        height, width = size
        key = (height, width, torch.get_num_threads())
        if key not in self._compiled:
            self._compiled[key] = self._compile(*key)
        self._compiled.move_to_end(key)
        while len(self._compiled) > KEPT_SIZES:
            self._compiled.popitem(last=False)
        return self._compiled[key]

    def _compile(self, height: int, width: int, num_threads: int) -> "_Requests":
        model = self._model.clone()
        model.reshape([1, height, width, 3])
        properties = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": num_threads,
            "INFERENCE_NUM_THREADS": num_threads,  # of all streams together: one each
            "ENABLE_CPU_PINNING": False,  # every process would take the same cores
            "ENABLE_HYPER_THREADING": True,
        }
        return _Requests(self._core.compile_model(model, "CPU", properties))


class _Requests:
    """A compiled graph and its requests; a thread that finds none idle makes one more."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._idle: deque[Any] = deque([compiled.create_infer_request()])

    def __call__(self, image_1HWC: Tensor) -> list[Tensor]:
        """Return one (1, C, h, w) map per level, its channels side by side in memory."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.infer([image_1HWC.contiguous().numpy()], share_inputs=True)
        maps = [torch.from_numpy(output.data).clone() for output in request.output_tensors]
        self._idle.append(request)
        return [level_1hwC.permute(0, 3, 1, 2) for level_1hwC in maps]


def for_one_image(
    identity: str, network: Callable[[], nn.Module], size: Sequence[int]
) -> ForOneImage | None:
    """Return what computes images of a height and width, loaded once while it is in use.

    The ``identity`` is the same for the same network, which is asked for if it is not loaded yet.

    Returns:
        None where PyTorch must compute the network.
    """
    with _loading:
        try:
            if identity not in _loaded:
                _loaded[identity] = CpuEngine(network())
            engine = _loaded[identity]
            compiled = None if engine is None else engine.compiled(size)
        except Exception as error:  # noqa: BLE001  whatever it is, PyTorch can compute float32
            reason = str(error).strip().splitlines() or [type(error).__name__]
            logger.warning("OpenVINO cannot compute on this CPU: %s", reason[0])
            _loaded[identity] = compiled = None
        _loaded.move_to_end(identity)
        while len(_loaded) > KEPT_NETWORKS:
            _loaded.popitem(last=False)
        return compiled


def _translate(network: nn.Module) -> tuple[Any, Any]:
    """Return an OpenVINO model of images of any size, and the core that compiles it."""
    # Without this module OpenVINO does not report over the network that it is used.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    from openvino import Core  # noqa: PLC0415  takes time to import; nothing on GPUs needs it
    from openvino.frontend import FrontEndManager  # noqa: PLC0415
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: PLC0415
    from openvino.passes import ConstantFolding, Manager  # noqa: PLC0415

    example = torch.zeros(TRACED, dtype=torch.uint8)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, which PyTorch advises against
        traced = torch.jit.trace(network, example, check_trace=False)
        decoder = TorchScriptPythonDecoder(traced, example_input=example)
    front_end = FrontEndManager().load_by_framework("pytorch")
    model = front_end.convert(front_end.load(decoder))
    passes = Manager()
    passes.register_pass(ConstantFolding())  # int8 is recognised by ranges that are numbers
    passes.run_passes(model)
    return model, Core()
