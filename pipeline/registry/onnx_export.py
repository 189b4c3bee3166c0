"""A registered model as one ONNX file that scores without Nightshift, PyTorch or a network.

Input ``image``: uint8 (N, H, W, 3), RGB. Outputs ``score``: float32 (N,), and ``map``: float32
(N, H, W), the smoothed anomaly map. The file's metadata says the rest, every value
as JSON: category, model_version, model_digest, threshold, false_alarm_rate, preprocessing.
"""

import difflib
import importlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.export import ExportedProgram

from model.detector import Detector
from model.errors import NightshiftError
from model.export import trace
from pipeline import storage
from pipeline.backbones import fetch_backbone
from pipeline.package import Package, package_digest
from pipeline.registry import connection, models
from pipeline.registry.models import RegisteredVersion

NEEDED = ("onnx", "onnxscript")  # by PyTorch's exporter
ABOUT = (
    "Anomaly detector of one product category. Bring an RGB image to preprocessing.crop pixels, "
    "the side of a square or height and width (bilinear, antialiased), and give it as uint8. "
    "preprocessing.fit says how: crop: shorter side to preprocessing.resize, then the central "
    "part; stretch: the whole image into these pixels; pad: as large as fits into them in its own "
    "proportions, the border repeated evenly on both sides. Where preprocessing has a "
    "pixel_range, that number is white in images of more than 8 bits: before an image is resized, "
    "its numbers become 255 * number / pixel_range, rounded and clipped. Higher scores are more "
    "anomalous. An image is flagged when score > threshold; false_alarm_rate is the share of good "
    "images that the threshold was set for."
)

logger = logging.getLogger(__name__)


class ExportError(NightshiftError):
    """There is no such model, it is not what was registered, or the exporter is not installed."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written."""

    uri: str
    size_bytes: int
    metadata: Mapping[str, Any]  # what the file says about itself


def export_onnx(category: str, uri: str, number: int | None = None) -> Exported:
    """Write a category's registered model as one ONNX file.

    Args:
        category: its name in the catalogue.
        uri: where the file goes, a local path or s3://; what is there is replaced.
        number: the registered version; without it, the champion.

    Raises:
        ExportError: there is no such model, the place of the file is a folder, or the extra
            ``export`` is not installed.
        RegistryError, WeightsError, StorageError: MLflow, the backbone's weights or the place of
            the file cannot be reached.
    """
    _check_exporter()
    if storage.is_local(uri) and Path(storage.absolute(uri)).is_dir():  # known before the work
        raise ExportError(f"{uri} is a folder where a file was needed; check the path")
    connection.connect()
    version = _choose(category, number)
    with TemporaryDirectory(prefix="nightshift-package-") as scratch:
        folder = models.download(version, Path(scratch))
        package, digest = Package.read(folder), package_digest(folder)
    if version.digest not in ("", digest):
        raise ExportError(
            f"{version.name} version {version.version} was registered with digest "
            f"{version.digest[:12]}, its files have {digest[:12]}. Onboard the category again."
        )
    if package.header.precision != "float32":
        raise ExportError(
            f"{version.name} version {version.version} computes in {package.header.precision}, "
            f"which ONNX runtimes would do in float32, with other scores than its threshold was "
            f"set for. Set `precision: float32` and onboard the category again."
        )
    if package.header.zones.min_area > 1:
        raise ExportError(
            f"{version.name} version {version.version} has zones.min_area, which no graph of "
            f"tensors can say. Onboard the category without it."
        )
    metadata = _metadata(version, package, digest)
    detector = Detector(
        fetch_backbone(package.header.backbone_config), package.heads, package.header
    )
    content = to_onnx(trace(detector), metadata)
    storage.write_bytes(uri, content)
    logger.info("exported %s version %s: %d bytes", version.name, version.version, len(content))
    return Exported(uri=uri, size_bytes=len(content), metadata=metadata)


def to_onnx(program: ExportedProgram, metadata: Mapping[str, Any]) -> bytes:
    """Return a traced detector as the content of an ONNX file, weights included.

    Args:
        program: what ``model.export.trace`` gives.
        metadata: values by name, written as JSON.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # noqa: PLC0415  an extra

    onnx = torch.onnx.export(
        program,
        input_names=["image"],
        output_names=["score", "map"],
        dynamic_shapes=({0: "N"},),
        dynamo=True,
        verbose=False,
    )
    assert onnx is not None  # it is when only a file is asked for
    ClearMetadataAndDocStringPass()(onnx.model)  # lines of our source, with their paths
    onnx.model.doc_string = ABOUT
    onnx.model.metadata_props.update({name: json.dumps(value) for name, value in metadata.items()})
    content: bytes = onnx.model_proto.SerializeToString()
    return content


def _check_exporter() -> None:
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ExportError(
                f"exporting needs the extra `export`: {name} cannot be imported ({error}). "
                f"Run `pip install '.[export]'` where Nightshift was installed from."
            ) from error


def _choose(category: str, number: int | None) -> RegisteredVersion:
    if number is not None:
        version = models.find_version(category, number)
        if version is None:
            raise ExportError(
                f"{category}: version {number} is not registered. "
                f"Give a --version that is, or none for the champion."
            )
        return version
    champions = models.champions()
    if category not in champions:
        close = difflib.get_close_matches(category, champions, n=1)
        advice = f"Did you mean `{close[0]}`?" if close else "Onboard it, or give a --version."
        raise ExportError(f"{category}: no champion is registered. {advice}")
    return champions[category]


def _metadata(version: RegisteredVersion, package: Package, digest: str) -> dict[str, Any]:
    return {
        "category": version.category,
        "model_version": version.version,
        "model_digest": digest,
        "threshold": package.reference.calibration.threshold,
        "false_alarm_rate": package.reference.calibration.false_alarm_rate,
        "preprocessing": package.header.preprocessing.to_json(),
    }
