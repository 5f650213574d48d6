"""Stores a bundle's weights as 16 bit floating point numbers, in half of the bytes.

    python scripts/halve_weights.py models/model.pt

Networks compute as before: loading makes 32 bit numbers of them again. Rounding changes a weight by at most 0.05 %, so
do this before the weights are scored, calibrated and compared, for these belong to the file's hash.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mobileutr_monai.core.atomic import write_atomic


def main() -> None:
    """Replaces the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a state dict, which is replaced")
    path = parser.parse_args().weights
    state = {name: halve(name, value) for name, value in torch.load(path, weights_only=True).items()}
    write_atomic(path, lambda file: torch.save(state, file))


def halve(name: str, value: torch.Tensor) -> torch.Tensor:
    """Returns the tensor in 16 bits; integers, and the variances of batch normalization, which are few and large, stay.

    Raises:
        SystemExit: a value is beyond what 16 bits can hold.
    """
    if not value.is_floating_point() or name.endswith("running_var"):
        return value
    half = value.half()
    if not half.isfinite().all():
        raise SystemExit(f"{name} holds {float(value.abs().max()):g}, more than a 16 bit number can; keep 32 bits")
    return half


if __name__ == "__main__":
    main()
