"""A packed 3D bundle in MONAI Deploy's bundle operator: DICOM series in, label map out, compared with monai.bundle run.

Not part of the tests that run by default; ``bash tests/deploy/run.sh`` makes its environment and runs it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Fragment, Operator, OperatorSpec
from monai.deploy.core.domain import Image
from monai.deploy.core.io_type import IOType
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from monai.deploy.operators.monai_bundle_inference_operator import IOMapping, MonaiBundleInferenceOperator

RULES = '{"selections": [{"name": "MR", "conditions": {"Modality": "MR"}}]}'


class Keep(Operator):
    """Writes the label map as numpy has it."""

    def __init__(self, fragment: Fragment, *args: object, path: Path, **kwargs: object) -> None:
        self.path = path
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("image")

    def compute(self, op_input, op_output, context) -> None:
        image = op_input.receive("image")
        np.save(self.path, image.asnumpy())


class SegmentSeries(Application):
    def __init__(self, bundle: Path, series: Path, output: Path) -> None:
        self.bundle, self.series, self.output = bundle, series, output
        super().__init__()

    def compose(self) -> None:
        loader = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=self.series, name="loader")
        selector = DICOMSeriesSelectorOperator(self, rules=RULES, name="selector")
        volume = DICOMSeriesToVolumeOperator(self, name="volume")
        bundle = MonaiBundleInferenceOperator(
            self,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            app_context=AppContext({}),
            bundle_path=self.bundle,
            name="bundle",
        )
        keep = Keep(self, path=self.output, name="keep")
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, volume, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(volume, bundle, {("image", "image")})
        self.add_flow(bundle, keep, {("pred", "image")})


def compare(found: np.ndarray, expected: Path) -> float:
    """Returns the share of equal voxels of the foregrounds' union; Deploy has slices first, rows before columns."""
    mask = np.asarray(nib.load(expected).dataobj)
    found = found.reshape(mask.shape[::-1]).transpose(2, 1, 0)
    union = (found > 0) | (mask > 0)
    return float(np.mean(found[union] == mask[union]))


def main() -> int:
    bundle, series, output, expected = map(Path, sys.argv[1:5])
    SegmentSeries(bundle, series, output).run()
    share = compare(np.load(output), expected)
    print(f"{share:.4f} of the labelled voxels are those of monai.bundle run")
    return 0 if share > 0.99 else 1


if __name__ == "__main__":
    sys.exit(main())
