"""What the server makes of label maps: DICOM Segmentations."""

from __future__ import annotations

import json
import tempfile
from collections import deque
from pathlib import Path
from uuid import uuid4

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.inference.outputs.dicom.provenance import Algorithm
from mobileutr_monai.inference.outputs.dicom.seg import Annotation, read_segment_labels, write_segmentation
from mobileutr_monai.monai_label.label_file_io import read_label_file, read_one_case

__all__ = ["ResultMaker"]

_MOST_FILES = 16


class ResultMaker:
    """Makes DICOM Segmentations that say what the bundle's metadata says of its labels.

    Args:
        bundle: its weights are named in what is made, those that are there at that time.
    """

    def __init__(self, bundle: Path) -> None:
        self.weights = bundle / "models" / "model.pt"
        self.metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
        self.labels = read_segment_labels(self.metadata)
        self._folder = tempfile.TemporaryDirectory(prefix="monai_label_")
        self._made: deque[Path] = deque()

    def make_segmentation(self, series: str, label: str, annotation: Annotation | None = None) -> str:
        """Returns a new file with a label map as DICOM SEG.

        MONAI Label sends it and leaves it there, so that files are removed when ``_MOST_FILES`` others have been made.

        Args:
            series: folder of the DICOM files.
            label: PNG, NIfTI or NRRD on the grid of the image that the label map is of.
            annotation: who drew or corrected it; the bundle alone by default.
        """
        case = read_one_case(Path(series))
        digest = hash_file(self.weights)
        algorithm = Algorithm(str(self.metadata["name"]), str(self.metadata["version"]), digest)
        output = Path(self._folder.name) / f"{uuid4().hex}.dcm"
        write_segmentation(
            case, read_label_file(Path(label), case), self.labels, algorithm, output, annotation=annotation
        )
        self._made.append(output)
        if len(self._made) > _MOST_FILES:
            self._made.popleft().unlink(missing_ok=True)
        return str(output)
