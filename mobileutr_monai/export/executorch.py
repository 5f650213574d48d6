"""ExecuTorch: a program for one image of one size, with its facts as a constant method."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from mobileutr_monai.export.prepare import Facts, Run, prepare, quiet
from mobileutr_monai.networks import MobileUtr

__all__ = ["open_executorch", "write_executorch"]

_FACTS_METHOD = "facts"


def write_executorch(network: MobileUtr, path: Path, facts: Facts) -> None:
    """Writes a program for one image of the fact ``sides``, compiled for XNNPACK."""
    folded, _ = prepare(network)
    image = torch.zeros(1, network.in_channels, *json.loads(facts["sides"]))
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = to_edge_transform_and_lower(
            torch.export.export(folded, (image,)),
            partitioner=[XnnpackPartitioner()],
            constant_methods={_FACTS_METHOD: json.dumps(dict(facts))},
        )
        path.write_bytes(program.to_executorch().buffer)


def open_executorch(path: Path) -> tuple[Run, dict[str, str]]:
    """Returns what runs a program, image by image, and the facts in it."""
    with quiet():
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(path)
    (facts,) = program.load_method(_FACTS_METHOD).execute([])
    forward = program.load_method("forward")

    def run(images: np.ndarray) -> np.ndarray:
        # A copy: the next image's logits are written where these lie.
        logits = [forward.execute([image[None]])[0].numpy().copy() for image in torch.from_numpy(images)]
        return np.concatenate(logits)

    return run, json.loads(facts)
