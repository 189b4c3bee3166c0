"""Is this place fit for Nightshift? The checks that need nobody but this machine.

A check looks at one thing and says PASS, WARN or FAIL, what was found, and how to mend it.
"""

import importlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.checks import Check, failed, passed, warned
from pipeline.version import version

GB = 10**9
PYTHON = (3, 11)
# A scoring worker takes about 1.1 GB with ResNet-18; an onboarding keeps up to 4 GB of features.
LEAST_MEMORY_GB, ENOUGH_MEMORY_GB = 1.5, 6.0
LEAST_DISK_GB, ENOUGH_DISK_GB = 1.0, 20.0
ENOUGH_SHARED_MEMORY_GB = 1.0
IN_MEMORY = ("tmpfs", "ramfs")  # file systems


def check_machine() -> Iterator[Check]:
    """Look at everything that needs no server."""
    yield passed("nightshift", f"version {version()}")
    yield check_python(sys.version_info[:3])
    yield check_packages(importlib.metadata.requires, importlib.metadata.version)
    yield from check_torch()
    yield check_memory(available_memory())
    yield check_shared_memory(Path("/dev/shm"))  # noqa: S108  Ray's, by its name
    yield check_disk(Path(tempfile.gettempdir()), mounted_as)


def check_python(version: tuple[int, ...]) -> Check:
    """Say whether this Python is new enough."""
    said = f"Python {'.'.join(map(str, version))}"
    if version < PYTHON:
        needed = ".".join(map(str, PYTHON))
        return failed("python", f"{said}, {needed} is needed", f"Install Python {needed} or newer.")
    return passed("python", said)


def check_packages(
    requires: Callable[[str], list[str] | None], installed: Callable[[str], str]
) -> Check:
    """Compare what is installed with the versions that Nightshift asks for."""
    from packaging.requirements import Requirement  # noqa: PLC0415  MLflow brings it

    advice = "Install Nightshift again: pip install -c constraints.txt . (in its checkout)."
    try:
        stated = [Requirement(line) for line in requires("nightshift") or []]
    except importlib.metadata.PackageNotFoundError:
        return warned("packages", "Nightshift runs from a folder and is not installed", advice)
    wanted = [need for need in stated if not need.marker or need.marker.evaluate({"extra": ""})]
    wrong = []
    for need in wanted:
        try:
            version_here = installed(need.name)
        except importlib.metadata.PackageNotFoundError:
            version_here = "nothing"
        if version_here == "nothing" or not need.specifier.contains(version_here, prereleases=True):
            wrong.append(f"{need.name} {version_here} where {need.specifier or 'any'} is needed")
    if wrong:
        return failed("packages", "; ".join(wrong), advice)
    return passed("packages", f"the {len(wanted)} packages asked for, in fitting versions")


def check_torch() -> Iterator[Check]:
    """Import PyTorch and torchvision, and have a GPU add two numbers where there is one."""
    try:
        torch = importlib.import_module("torch")
        vision = importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        yield failed(
            "torch",
            f"PyTorch cannot be used: {str(error).splitlines()[0]}",
            "Install torch and torchvision together, in the versions of constraints.txt.",
        )
        return
    yield passed("torch", f"torch {torch.__version__}, torchvision {vision.__version__}")
    yield check_gpu(
        has_device=Path("/dev/nvidiactl").exists(),
        count=torch.cuda.device_count() if torch.cuda.is_available() else 0,
        compute=lambda: float(torch.ones(2, device="cuda").sum()),
    )


def check_gpu(*, has_device: bool, count: int, compute: Callable[[], float]) -> Check:
    """Say whether PyTorch can use the GPU that this machine has, if it has one."""
    if count:
        try:
            compute()
        except RuntimeError as error:
            said = str(error).splitlines()[0]
            advice = "Update the NVIDIA driver, or install a PyTorch build for this GPU."
            return failed("gpu", f"PyTorch sees {count} but cannot compute on it: {said}", advice)
        return passed("gpu", f"PyTorch computes on {count}")
    if has_device:
        advice = "Update the NVIDIA driver, or install a PyTorch build with CUDA."
        return warned("gpu", "this machine has an NVIDIA GPU that PyTorch does not see", advice)
    return passed("gpu", "none; everything runs on CPUs")


def check_memory(available_bytes: int) -> Check:
    """Say whether there is room for a worker, and for an onboarding's features."""
    gigabytes = available_bytes / GB
    said = f"{gigabytes:.1f} GB of memory free"
    if gigabytes < LEAST_MEMORY_GB:
        return failed(
            "memory",
            f"{said}, a scoring worker needs {LEAST_MEMORY_GB:g}",
            "Raise the container's memory limit, or end what uses the memory.",
        )
    if gigabytes < ENOUGH_MEMORY_GB:
        return warned(
            "memory",
            f"{said}, an onboarding with the default cache_gb takes up to {ENOUGH_MEMORY_GB:g}",
            "Raise the memory limit, or lower cache_gb: features then lie in a file.",
        )
    return passed("memory", said)


def available_memory(
    meminfo: Path = Path("/proc/meminfo"), control: Path = Path("/sys/fs/cgroup")
) -> int:
    """Bytes that a process may still take: what the machine has free, or less in a container."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int((control / "memory.max").read_text())
        used = int((control / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free
    return min(free, max(0, limit - used))


def check_shared_memory(folder: Path) -> Check:
    """Look at the folder where Ray keeps objects; containers often get 64 MB."""
    if not folder.is_dir():
        return passed("shared memory", f"no {folder} here; Ray uses the temporary folder")
    gigabytes = shutil.disk_usage(folder).total / GB
    said = f"{folder} has {gigabytes:.2f} GB"
    if gigabytes < ENOUGH_SHARED_MEMORY_GB:
        advice = "Give the container more (docker --shm-size, or an emptyDir of medium Memory)."
        return warned("shared memory", f"{said}; Ray's objects then lie on the disk", advice)
    return passed("shared memory", said)


def check_disk(folder: Path, file_system: Callable[[Path], str]) -> Check:
    """Look at the temporary folder: features of a large category lie there in a file."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        gigabytes = shutil.disk_usage(folder).free / GB
    except OSError as error:
        advice = "Set TMPDIR to a folder that this user may write to, on a disk with room."
        return failed("disk", f"{folder} cannot be written: {error.strerror}", advice)
    said = f"{folder} has {gigabytes:.1f} GB free"
    advice = "Set TMPDIR to a folder on a disk with room, or lower cache_disk_gb."
    if gigabytes < LEAST_DISK_GB:
        return failed("disk", f"{said}, {LEAST_DISK_GB:g} GB is the least", advice)
    if file_system(folder) in IN_MEMORY:
        return warned("disk", f"{said}, but lies in memory", advice)
    if gigabytes < ENOUGH_DISK_GB:
        finding = f"{said}, the features of a large category take up to 64 GB"
        return warned("disk", finding, advice)
    return passed("disk", said)


def mounted_as(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return the kind of file system that a folder lies on; "" where nobody says."""
    try:
        entries = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    above = [(mount, kind) for mount, kind in entries if folder.resolve().is_relative_to(mount)]
    return max(above, key=lambda entry: len(entry[0]), default=("", ""))[1]
