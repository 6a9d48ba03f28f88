"""Where tensors are: from NumPy to a device and back.

NumPy arrays are the language of everything outside the networks; what a network reads and answers
passes through here, so that nothing else needs to know on which device it works.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CPU = torch.device("cpu")


def placed(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor on a device; on the CPU it is the same memory.

    To CUDA it goes through pinned memory, and nobody waits for it to arrive: what is computed with
    it comes after it anyway.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def as_array(tensor: Tensor) -> NDArray[Any]:
    """The tensor as a NumPy array; of one on the CPU it is the same memory."""
    found: NDArray[Any] = tensor.detach().cpu().numpy()
    return found


def copied(tensor: Tensor) -> NDArray[Any]:
    """The tensor as a NumPy array of its own."""
    return np.array(as_array(tensor))
