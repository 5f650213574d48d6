"""Cases of several files: one per channel, as nnU-Net names them."""

from __future__ import annotations

import re
from dataclasses import replace

from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.readers.cases import FoundInputs, InputCase

__all__ = ["group_channels"]

_CHANNEL = re.compile(r"(.+)_(\d{4})")
_COLOURS = (1, 3)
"""Channels of a single picture."""


def group_channels(found: FoundInputs, channels: int, spatial_dims: int) -> FoundInputs:
    """Makes one case of files NAME_0000, NAME_0001 ... in a folder, where a bundle takes that many channels.

    Others stay as they are; a file that lacks its other channels fails when it is read, which says how many it has.

    Args:
        channels: that the network expects. One file has all of them in 3D if it is one, in 2D if it is one or three.
    """
    if channels in (_COLOURS if spatial_dims == 2 else (1,)):
        return found
    kind = CaseKind.IMAGE if spatial_dims == 2 else CaseKind.NIFTI
    groups: dict[str, dict[int, InputCase]] = {}
    for case in found.cases:
        match = _CHANNEL.fullmatch(case.output)
        if match and case.kind in (kind, CaseKind.NIFTI):
            groups.setdefault(match[1], {})[int(match[2])] = case
    outputs = {case.output for case in found.cases}
    whole = {
        output: [parts[number] for number in range(channels)]
        for output, parts in groups.items()
        if parts.keys() == set(range(channels)) and output not in outputs
    }
    grouped = {case.name for parts in whole.values() for case in parts}
    cases = [case for case in found.cases if case.name not in grouped]
    for output, parts in whole.items():
        paths = tuple(path for case in parts for path in case.paths)
        cases.append(replace(parts[0], output=output, paths=paths))
    return FoundInputs(sorted(cases, key=lambda case: case.name), found.unused)
