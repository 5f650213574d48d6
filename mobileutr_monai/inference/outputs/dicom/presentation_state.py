"""Contours of stills and cines as a softcopy presentation state, by highdicom: a viewer draws them on the source image.

Contours run along the edges of pixels, so that filling them gives the label map. Grey images get a grayscale state
(GSPS), images in colour a color one. A frame of a cine has contours of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import ImageCms
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.text import SHORT_NOTICE
from mobileutr_monai.inference.outputs.dicom.provenance import (
    MANUFACTURER,
    Algorithm,
    OutputCheckError,
    check_source,
    copy_patient_and_study,
    derive_uid,
    encode,
    hash_label_map,
    positive_number,
    set_creation,
    short_text,
    source_series_uid,
    study_uid,
    suppress_pydicom_warnings,
)
from mobileutr_monai.inference.outputs.dicom.seg import SegmentLabel
from mobileutr_monai.inference.outputs.overlay import COLOURS
from mobileutr_monai.inference.outputs.polygons import Ring, fill_rings, trace_polygons
from mobileutr_monai.readers.dicom.errors import READ_ERRORS, DicomError, as_dicom_errors
from mobileutr_monai.readers.dicom.header import DicomHeader, frame_attributes, numbers, read_header
from mobileutr_monai.readers.dicom.series import DicomCase

if TYPE_CHECKING:
    from highdicom import pr

__all__ = ["write_presentation_state"]

# States are numbered after reports.
_SERIES_OFFSET = 4000
_CONTENT_LABEL = "MOBILEUTR"
_COLOURS_OF_AN_IMAGE = 3

_NOTICE_LAYER = "NOTICE"
_NOTICE_PLACE = (0.02, 0.98)
"""Of the notice, (x, y) as parts of the displayed area: at its bottom left."""

_LOOKUPS = (
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "VOILUTSequence",
)
"""What makes a grey image's values its brightness: it is repeated in a state, which replaces it."""

# Places in the header of an ICC profile: its device class, when it was made (here 2000-01-01), and its checksum.
_ICC_CLASS, _ICC_DATE, _ICC_CHECKSUM = slice(12, 16), slice(24, 36), slice(84, 100)
_ICC_DATE_MADE = bytes((7, 208, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0))


def write_presentation_state(
    case: DicomCase,
    label_maps: Iterable[np.ndarray],
    labels: Sequence[SegmentLabel],
    algorithm: Algorithm,
    output: Path,
    *,
    created: datetime | None = None,
) -> None:
    """Writes the contours of a still or cine as a presentation state atomically; they are read again and compared.

    Every label is a layer with its name and colour. UIDs are derived from the source's, the bundle, its weights and the
    result, so that two runs write the same bytes but for dates and times.

    Args:
        label_maps: one per frame.
        created: date and time to write; now by default.

    Shape:
        - label_maps: (rows, columns) each.

    Raises:
        DicomError: the case is a series, or the file cannot be referred to.
        OutputCheckError: what was written is not the label maps.
    """
    if case.kind is CaseKind.SERIES:
        raise DicomError(case.paths[0], Reason.UNSUPPORTED_IMAGE, "presentation states are of stills and cines")
    with suppress_pydicom_warnings():
        header = read_header(case.paths[0])
        check_source(header)
        with as_dicom_errors(case.paths[0], Reason.INCOMPLETE):
            dataset, digests = _build(case, header, label_maps, labels, algorithm, created)
        content = encode(dataset, case.paths[0])

        def write(file: IO[bytes]) -> None:
            file.write(content)
            file.flush()
            if _digest_written(Path(file.name), case, labels) != digests:
                raise OutputCheckError(f"{output}: the contours do not fill the label map")

        write_atomic(output, write)


def _build(
    case: DicomCase,
    header: DicomHeader,
    label_maps: Iterable[np.ndarray],
    labels: Sequence[SegmentLabel],
    algorithm: Algorithm,
    created: datetime | None,
) -> tuple[Dataset, list[str]]:
    """Returns the state, and the digest of each frame's label map."""
    from highdicom import PresentationLUTTransformation, pr
    from highdicom.color import CIELabColor

    image = _stand_in(case, header)
    layers = [
        pr.GraphicLayer(
            f"LABEL_{item.index}",
            order,
            short_text(item.name),
            CIELabColor.from_rgb(*COLOURS[(order - 1) % len(COLOURS)]),
        )
        for order, item in enumerate(labels, start=1)
    ]
    layers.append(pr.GraphicLayer(_NOTICE_LAYER, len(layers) + 1, SHORT_NOTICE))
    annotations, digests = [], []
    found = set()
    for frame, label in enumerate(label_maps, start=1):
        digests.append(hash_label_map(label))
        for item, layer in zip(labels, layers, strict=False):
            if annotation := _outline(image, label == item.index, item, layer):
                found.add(item.name)
                annotations.append(annotation)
                if case.kind is CaseKind.CINE:
                    annotation.ReferencedImageSequence[0].ReferencedFrameNumber = frame
    names = [item.name for item in labels if item.name in found] or ["nothing found"]
    notice = f"Research only: {short_text(', '.join(names))}"
    text = pr.TextObject(notice, "DISPLAY", anchor_point=_NOTICE_PLACE, anchor_point_visible=False)
    annotations.append(pr.GraphicAnnotation([image], layers[-1], text_objects=[text]))

    made_by = algorithm.identity
    common: dict[str, Any] = {
        "referenced_images": [image],
        "series_instance_uid": derive_uid("presentation series", *made_by, source_series_uid(header)),
        "series_number": positive_number(header, "SeriesNumber", _SERIES_OFFSET),
        "sop_instance_uid": derive_uid("presentation", *made_by, *case.sop_uids, *digests, *map(str, labels)),
        "instance_number": positive_number(header, "InstanceNumber"),
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": short_text(algorithm.name),
        "software_versions": short_text(algorithm.version),
        "device_serial_number": algorithm.weights_sha256,
        "content_label": _CONTENT_LABEL,
        "content_description": SHORT_NOTICE,
        "graphic_annotations": annotations,
        "graphic_layers": layers,
        "transfer_syntax_uid": ImplicitVRLittleEndian,  # a contour of many points does not fit an explicit element
    }
    dataset: Dataset
    if image.SamplesPerPixel == _COLOURS_OF_AN_IMAGE:
        dataset = pr.ColorSoftcopyPresentationState(**common, icc_profile=_find_profile(header))
    else:
        shape = "INVERSE" if header.dataset.get("PhotometricInterpretation") == "MONOCHROME1" else "IDENTITY"
        dataset = pr.GrayscaleSoftcopyPresentationState(
            **common, presentation_lut_transformation=PresentationLUTTransformation(presentation_lut_shape=shape)
        )
    copy_patient_and_study(header, dataset)
    dataset.walk(lambda item, element: _restore_class(item, element.keyword, case))
    dataset.SeriesDescription = short_text(f"Research only: {algorithm.name}, contours")
    dataset.Laterality = header.dataset.get("Laterality") or ""
    _set_pixel_size(dataset, header)
    set_creation(dataset, created)
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = dataset.ContentDate, dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime
    return dataset, digests


def _stand_in(case: DicomCase, header: DicomHeader) -> Dataset:
    """What highdicom needs of the source, which may be of any SOP class; palettes count as colour."""
    source = header.dataset
    image = Dataset()
    # Of this class highdicom demands no functional groups, which cines do not have.
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, case.sop_uids[0]
    image.StudyInstanceUID, image.SeriesInstanceUID = study_uid(header), source_series_uid(header)
    image.Rows, image.Columns = case.rows, case.columns
    is_colour = header.samples > 1 or source.get("PhotometricInterpretation") == "PALETTE COLOR"
    image.SamplesPerPixel = _COLOURS_OF_AN_IMAGE if is_colour else 1
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(image, keyword, "")
    image.StudyDate = image.StudyTime = ""
    if not is_colour:
        attributes = frame_attributes(source, 0)
        for keyword in _LOOKUPS:
            try:
                if keyword in attributes and attributes[keyword].value not in (None, ""):
                    image[keyword] = attributes[keyword]
            except READ_ERRORS:
                continue
    return image


def _restore_class(item: Dataset, keyword: str, case: DicomCase) -> None:
    """Puts the SOP class of the source in the place of the stand-in's."""
    if keyword == "ReferencedSOPClassUID":
        item.ReferencedSOPClassUID = case.sop_class_uid


def _outline(
    image: Dataset, region: np.ndarray, item: SegmentLabel, layer: pr.GraphicLayer
) -> pr.GraphicAnnotation | None:
    """Returns the contours of a label in a frame with its name at the largest; None where it is not."""
    from highdicom import pr

    polygons = trace_polygons(region)
    if not polygons:
        return None
    graphics = [
        pr.GraphicObject("POLYLINE", np.array([*ring, ring[0]], np.float64), "PIXEL")
        for rings in polygons
        for ring in rings
    ]
    outer = max((rings[0] for rings in polygons), key=_find_area)
    top = min(outer, key=lambda corner: corner[::-1])
    name = pr.TextObject(short_text(item.name), "PIXEL", anchor_point=top, anchor_point_visible=False)
    return pr.GraphicAnnotation([image], layer, graphic_objects=graphics, text_objects=[name])


def _find_area(ring: Ring) -> int:
    x, y = np.array(ring).T
    return int(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def _find_profile(header: DicomHeader) -> bytes:
    """Returns the source's ICC profile, or that of sRGB, of the class that DICOM demands and the same in every run."""
    source = header.dataset.get("ICCProfile")
    profile = bytearray(source or ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if not source:
        profile[_ICC_DATE] = _ICC_DATE_MADE
    if profile[_ICC_CLASS] == b"mntr":
        profile[_ICC_CLASS] = b"scnr"
        profile[_ICC_CHECKSUM] = bytes(16)  # not computed
    return bytes(profile)


def _set_pixel_size(dataset: Dataset, header: DicomHeader) -> None:
    """Says the height and width of pixels, so that contours and image are stretched alike."""
    area = dataset.DisplayedAreaSelectionSequence[0]
    attributes = frame_attributes(header.dataset, 0)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if (spacing := numbers(attributes, keyword, 2)) and min(spacing) > 0:
            area.PresentationPixelSpacing = attributes[keyword].value
            del area.PresentationPixelAspectRatio
            return
    if (ratio := numbers(attributes, "PixelAspectRatio", 2)) and min(ratio) > 0:
        area.PresentationPixelAspectRatio = [int(value) for value in ratio]


def _digest_written(path: Path, case: DicomCase, labels: Sequence[SegmentLabel]) -> list[str]:
    """Fills the contours of a state and returns the digest of each frame's label map."""
    label_maps: dict[int, np.ndarray] = {}
    indices = {f"LABEL_{item.index}": item.index for item in labels}
    shape = (case.rows, case.columns)
    for annotation in dcmread(path).GraphicAnnotationSequence:
        if annotation.GraphicLayer not in indices:
            continue
        frame = int(annotation.ReferencedImageSequence[0].get("ReferencedFrameNumber", 1))
        label = label_maps.setdefault(frame, np.zeros(shape, np.uint8))
        label[fill_rings(list(_read_rings(annotation)), shape)] = indices[annotation.GraphicLayer]
    empty = np.zeros(shape, np.uint8)
    return [hash_label_map(label_maps.get(frame, empty)) for frame in range(1, case.frames + 1)]


def _read_rings(annotation: Dataset) -> Iterator[Ring]:
    for graphic in annotation.GraphicObjectSequence:
        points = np.reshape(graphic.GraphicData, (-1, 2))[:-1]
        yield [(round(x), round(y)) for x, y in points.tolist()]
