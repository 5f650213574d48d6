"""Which of several training processes writes files."""

from __future__ import annotations

import torch.distributed as dist

__all__ = ["is_main_process"]


def is_main_process() -> bool:
    """Whether this is the only process, or the first one of those started by torchrun."""
    return not dist.is_initialized() or dist.get_rank() == 0
