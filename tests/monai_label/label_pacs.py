"""What lies in the PACS of the tests."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

from dicom_samples import complete_series, write_cine, write_series, write_still, write_ultrasound_series
from label_service import BREAST, HIPPOCAMPUS, ROOT
from orthanc_server import Orthanc, ask
from pydicom import dcmread
from pydicom.dataset import Dataset

SHARED = ROOT.parent / "shared" / "data" / "dicom"


class Pacs:
    """What lies in Orthanc: series UIDs, and the files that they are made of."""

    def __init__(self, orthanc: Orthanc, folder: Path) -> None:
        self.orthanc, self.folder = orthanc, folder
        sample = BREAST / "sample_data" / "images" / "malignant (53).jpg"  # a lesion that is found
        self.stills = {}
        for mode in ("L", "RGB"):
            (folder / mode).mkdir()
            self.stills[mode] = write_still(sample, mode, folder / mode / "still.dcm")
        (folder / "untouched").mkdir()  # by inference
        self.stills["untouched"] = write_still(sample, "L", folder / "untouched" / "still.dcm")
        (folder / "cine").mkdir()
        self.cine = write_cine(folder / "L" / "still.dcm", folder / "cine" / "cine.dcm")
        (folder / "several").mkdir()
        samples = [path for path in sorted(sample.parent.iterdir()) if "normal" not in path.name]
        self.several, self.several_stills = write_ultrasound_series(samples[1:3], folder / "several")
        (folder / "series").mkdir()
        self.series = write_series(sorted((HIPPOCAMPUS / "sample_data" / "images").iterdir())[0], folder / "series")
        self.volumes = {"series": self.series}
        if SHARED.is_dir():
            # A real MR series, as it is: a crop around a hippocampus.
            shutil.copytree(SHARED / "mr_series_Study2_14_HCropVolume", folder / "mr")
            self.volumes["mr"] = str(dcmread(next((folder / "mr").iterdir())).SeriesInstanceUID)
            # A real CT series, whose headers lack their UIDs.
            (folder / "ct").mkdir()
            part = slice(200, 280), slice(140, 204)
            self.volumes["ct"] = complete_series(SHARED / "ct_series_totalseg", folder / "ct", *part)
        for path in sorted(folder.rglob("*.dcm")):
            orthanc.store(path)

    def fetch_segmentations(self, of: str) -> list[Dataset]:
        """Returns the segmentations of a series or an instance, fetched over DICOMweb."""
        found = []
        for item in ask(f"{self.orthanc.dicom_web}/series?Modality=SEG").json:
            study, series = item["0020000D"]["Value"][0], item["0020000E"]["Value"][0]
            place = f"{self.orthanc.dicom_web}/studies/{study}/series/{series}/instances"
            for instance in ask(place).json:
                answer = ask(f"{place}/{instance['00080018']['Value'][0]}")
                start = answer.body.index(b"DICM") - 128
                dataset = dcmread(BytesIO(answer.body[start:]), force=True)
                source = dataset.ReferencedSeriesSequence[0]
                instances = [each.ReferencedSOPInstanceUID for each in source.ReferencedInstanceSequence]
                if of in (source.SeriesInstanceUID, *instances):
                    found.append(dataset)
        return found
