"""One thread for torch: the tests share two cores, and waiting threads of torch's own spin."""

from __future__ import annotations

import contextlib
import os

os.environ["OMP_NUM_THREADS"] = "1"

with contextlib.suppress(ModuleNotFoundError):
    import torch

    torch.set_num_threads(1)
