"""The numeric mode of a backbone: float32, bfloat16 where a device is faster in it, or int8.

Rounding a network to bfloat16 or int8 (``int8.py``) moves scores by a tenth of good images' spread
and more: little enough to find the same defects, too much for a threshold that was set in the other
mode. So the mode is chosen once, when a category is onboarded, belongs to its detector like the
backbone itself, and is what scores everywhere. Between machines a mode's scores still differ by the
order of their sums, in bfloat16 visibly so where a rounding tips over; what a machine cannot do is
an error.
"""

from typing import Literal

import torch

from model.errors import CategoryFault

Precision = Literal["float32", "bfloat16", "int8"]
PrecisionSetting = Literal["auto", "float32", "bfloat16", "int8"]  # auto: chosen at onboarding
# What holds a network's numbers, to which int8 has rounded them.
PRECISIONS: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int8": torch.float32,
}


class PrecisionError(CategoryFault):
    """A detector's numeric mode is not to be had on this machine."""


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has fast products of bfloat16 numbers."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def disable_tf32() -> None:
    """Let float32 mean float32 on every device, for the whole process.

    cuDNN would convolve float32 numbers with 10 bits instead of 23: one more numeric mode, of which
    no detector would know.
    """
    torch.backends.cudnn.allow_tf32 = False


def require(precision: Precision, device: torch.device) -> None:
    """Check that a device has a numeric mode.

    Raises:
        PrecisionError: it has not.
    """
    if precision == "bfloat16" and not has_bfloat16(device):
        raise PrecisionError(
            f"the detector was calibrated in bfloat16, which this machine's {device.type} does not "
            f"have. Score where it was onboarded, or on a processor with AVX-512 or a GPU with "
            f"bfloat16; or set `precision: float32` and onboard the category again."
        )
    if precision == "int8" and device.type != "cpu":
        raise no_int8(f"this machine is to compute on {device.type}")


def no_int8(reason: str) -> PrecisionError:
    """Return what says that int8 cannot be computed, and what to do."""
    return PrecisionError(
        f"the detector computes in int8, which only OpenVINO on a CPU does, and {reason}. Score "
        f"and onboard it on CPUs; or set `precision: float32` and onboard the category again."
    )
