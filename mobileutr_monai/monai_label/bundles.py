"""The bundles of a server: what each takes, and which one per label is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobileutr_monai.monai_label.labels import LabelCheck
from mobileutr_monai.monai_label.results import ResultMaker

__all__ = ["ServedBundle", "find_model"]


class ServedBundle:
    """A bundle that a server offers.

    Attributes:
        results: makes DICOM Segmentations with its labels.
        check: compares labels with their images.
        modalities: of DICOM images that it takes.
        spatial_dims: 2 for images, 3 for volumes.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.results = ResultMaker(path)
        self.metadata: dict[str, Any] = self.results.metadata
        self.check = LabelCheck(path, self.results.labels)
        self.modalities: list[str] = list(self.metadata["modalities"])
        self.spatial_dims = len(self.metadata["network_data_format"]["inputs"]["image"]["spatial_shape"])

    @property
    def label_names(self) -> set[str]:
        return {label.name.lower() for label in self.results.labels}


def find_model(candidates: Sequence[ServedBundle], info: Mapping[str, Any], inferred: Iterable[str]) -> str:
    """Returns the bundle that a label is of.

    Args:
        candidates: that take the image.
        info: ``model`` and ``label_info`` of the client that sends the label, if it does.
        inferred: bundles that have made a mask of the image, the last one last.

    Raises:
        ValueError: it may be of several.
    """
    names = [bundle.name for bundle in candidates]
    if named := info.get("model"):
        if named not in names:
            raise ValueError(f"{named} does not take this image")
        return str(named)
    if len(names) == 1:
        return names[0]
    said = {str(item.get("name", "")).lower() for item in info.get("label_info") or [] if isinstance(item, dict)}
    alike = [bundle.name for bundle in candidates if said and said <= bundle.label_names]
    if len(alike) == 1:
        return alike[0]
    if used := [name for name in inferred if name in names]:
        return used[-1]
    raise ValueError(
        f"the label may be of {' or '.join(names) or 'no model'}; run the model on the image first, or send "
        '{"model": NAME} in params'
    )
