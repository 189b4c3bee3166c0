"""Are the services fit that Nightshift works with: object store, MLflow, backbone weights?

Each check waits for a bounded time, ends with what it wrote removed, and names no credential.
"""

import datetime as dt
import email.utils
import http.client
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from model.errors import NightshiftError
from pipeline import storage
from pipeline.checks import Check, failed, passed, warned

CLOCK_TIMEOUT_S = 5
SKEW_WARN_S, SKEW_FAIL_S = 60, 900  # S3 refuses requests that are 15 minutes off
AMAZON = "https://s3.amazonaws.com"
RIGHTS_ADVICE = "Give these credentials {right} on it; infra/rights/ has policies for each job."


def check_rights(out: str, name: str = "out") -> Iterator[Check]:
    """Write, list, read, replace only if absent, and delete one object below ``out``.

    A place that is away or may not be written is one FAIL: what comes after would say no more.
    """
    try:
        uri = storage.join(storage.absolute(out), "results", f".doctor-{uuid.uuid4().hex}")
        storage.write_bytes(uri, b"doctor")
    except NightshiftError as error:
        right = "the right to write" if storage.is_local(out) else "s3:PutObject"
        yield failed(f"{name}: write", str(error), RIGHTS_ADVICE.format(right=right))
        return
    yield passed(f"{name}: write", f"{out} takes objects")
    yield _try(f"{name}: read", "s3:GetObject", lambda: storage.read_bytes(uri))
    folder = uri.rpartition("/")[0]
    yield _try(f"{name}: list", "s3:ListBucket", lambda: storage.list_names(folder))
    yield _check_conditional(uri, f"{name}: conditional write")
    yield _try(f"{name}: delete", "s3:DeleteObject", lambda: storage.delete(uri))


def _try(name: str, right: str, action: Callable[[], object]) -> Check:
    try:
        action()
    except NightshiftError as error:
        return failed(name, str(error), RIGHTS_ADVICE.format(right=right))
    return passed(name, "works")


def _check_conditional(uri: str, name: str) -> Check:
    """A second write of one name must be refused: that is how one of many writers wins."""
    try:
        if not storage.write_new(uri, b"doctor"):
            return passed(name, "a second writer is refused (If-None-Match)")
        finding = "the object store replaced an object that was to be written only if absent"
    except NightshiftError as error:
        finding = str(error)
    advice = "Use an object store that honours If-None-Match: *, or run one job on a night only."
    return warned(name, finding, advice)


def check_clock(endpoint: str, now: Callable[[], dt.datetime]) -> Check:
    """Compare this machine's clock with the Date that the object store answers with."""
    address = endpoint.rpartition("@")[2] if "@" in endpoint else endpoint
    try:
        sent = now()
        store = _date(endpoint)
        skew_s = (sent + (now() - sent) / 2 - store).total_seconds()
    except (OSError, ValueError, http.client.HTTPException) as error:
        advice = "Start it, or correct AWS_ENDPOINT_URL."
        return failed("clock", f"the object store {address} does not say its time: {error}", advice)
    said = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the object store's clock"
    advice = "Set the clock: enable NTP (timedatectl set-ntp true, or chrony) on this machine."
    if abs(skew_s) >= SKEW_FAIL_S:
        return failed("clock", f"{said}, which refuses requests from {SKEW_FAIL_S} s on", advice)
    if abs(skew_s) >= SKEW_WARN_S:
        return warned("clock", said, advice)
    return passed("clock", f"within {SKEW_WARN_S} s of the object store's")


def _date(endpoint: str) -> dt.datetime:
    """Ask without credentials: a refusal carries the time as well."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("its address is not http://host:port")
    url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310  checked above
    try:
        with urllib.request.urlopen(request, timeout=CLOCK_TIMEOUT_S) as answer:  # noqa: S310
            said = answer.headers["Date"]
    except urllib.error.HTTPError as error:
        said = error.headers["Date"]
    if not said:
        raise ValueError("its answer has no Date")
    return email.utils.parsedate_to_datetime(said)


def store_address(out: str | None) -> str | None:
    """Where the object store is, if one is used: as AWS_* says, or Amazon's for an s3:// place."""
    given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return given or (None if out is None or storage.is_local(out) else AMAZON)


def check_mlflow() -> Iterator[Check]:
    """Reach the tracking server, and have its registry take a model and forget it again."""
    from pipeline.registry import connection, models  # noqa: PLC0415  MLflow takes seconds to import

    try:
        address = connection.connect(connection.ONBOARDINGS)
        connection.check_experiments()
        models.try_out()
        num_champions = len(models.champions())
    except connection.RegistryUnfit as error:
        yield failed("mlflow", str(error), "Mend that, and run this again.")
        return
    except NightshiftError as error:
        advice = (
            "Check MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "and that this user may create models."
        )
        yield failed("mlflow", str(error), advice)
        return
    if os.environ.get("RAY_ADDRESS") and not os.environ.get("MLFLOW_TRACKING_URI"):
        finding = f"a cluster is used, but models are registered in {address} of this folder"
        yield warned("mlflow", finding, "Set MLFLOW_TRACKING_URI to the team's MLflow server.")
    else:
        yield passed("mlflow", f"{address} answers; {num_champions} champions are registered")


def check_weights(catalogue: str | None) -> Iterator[Check]:
    """Load the backbones of a catalogue, each once; without one, the backbone that ships."""
    from model.backbone import BackboneConfig  # noqa: PLC0415  torch takes seconds to import
    from pipeline.backbones import fetch_backbone  # noqa: PLC0415
    from pipeline.catalogue.catalogue import load_catalogue  # noqa: PLC0415

    try:
        entries = load_catalogue(catalogue) if catalogue is not None else []
    except NightshiftError as error:
        yield failed("catalogue", str(error), "Mend the catalogue file.")
        return
    shipped = BackboneConfig(name="efficientnet_lite0")
    for config in dict.fromkeys(entry.backbone_config for entry in entries) or {shipped: None}:
        name = f"weights of {config.name}"
        try:
            fetch_backbone(config)
        except NightshiftError as error:
            yield failed(name, str(error), "Give `weights:` in the catalogue a file that fits.")
        else:
            yield passed(name, f"loaded from {config.weights or 'its own source'}")
