"""Times a training step in its forms, to choose the flags of ``train.py`` on a GPU: a minute at most."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from plans import PLANS
from train import Pack, Trainer


def main() -> None:
    """Prints milliseconds an image, alone and with four side by side."""
    began = time.monotonic()
    device = torch.device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    pack = Pack(Path(sys.argv[1]) / "breast.pack", device, 256)
    print(torch.cuda.get_device_name(), "packs", round(time.monotonic() - began, 1), flush=True)
    run = PLANS["one"][0].runs[0]
    for banded in (False, True):
        for batch_size in (16, 32):
            try:
                trainers = [Trainer(run, pack, device, batch_size, banded, True) for _ in range(4)]
                for side in (trainers[:1], trainers):
                    for rounds in (3, 25):
                        torch.cuda.synchronize()
                        start = time.monotonic()
                        for _ in range(rounds):
                            for trainer in side:
                                trainer.step(1e-3)
                        torch.cuda.synchronize()
                    each = (time.monotonic() - start) / rounds / len(side)
                    print(
                        f"banded {banded} batch {batch_size} side by side {len(side)}: {1e3 * each:.1f} ms a step, "
                        f"{batch_size / each:.0f} images/s, loss {float(side[0].loss):.3f}, "
                        f"{time.monotonic() - began:.0f} s",
                        flush=True,
                    )
                del trainers
            except RuntimeError as error:  # the next form may work
                print(f"banded {banded} batch {batch_size}: {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
