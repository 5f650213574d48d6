"""Results of cines, for which there is no DICOM Segmentation: pictures as a secondary capture, masks as a NIfTI stack.

Both are written frame by frame: a frame, not the cine, has to fit into memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import get_encoder, pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.core.kinds import CaseKind
from mobileutr_monai.core.text import SHORT_NOTICE
from mobileutr_monai.inference.outputs.dicom.provenance import (
    MANUFACTURER,
    Algorithm,
    OutputCheckError,
    check_source,
    copy_patient_and_study,
    derive_uid,
    encode,
    positive_number,
    set_creation,
    short_text,
    source_series_uid,
    suppress_pydicom_warnings,
)
from mobileutr_monai.inference.outputs.mask_stack import write_mask_stack
from mobileutr_monai.readers.dicom.header import DicomHeader, numbers, read_header
from mobileutr_monai.readers.dicom.series import DicomCase

__all__ = ["write_frame_masks", "write_overlay_capture"]

# Captures are numbered after segmentations.
_SERIES_OFFSET = 2000
_CHANNELS = 3
# An uncompressed element says its length in 32 bits, and it is even.
_MAX_ELEMENT_BYTES = 2**32 - 2

_PIXEL_DATA = (0x7FE0, 0x0010)
_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED_LENGTH = 0xFFFFFFFF


def write_overlay_capture(
    case: DicomCase,
    pictures: Iterable[Image.Image],
    algorithm: Algorithm,
    output: Path,
    *,
    compress: bool = False,
    created: datetime | None = None,
) -> None:
    """Writes pictures of a still's or cine's frames as a secondary capture atomically.

    A cine's is a multi-frame true color image with the cine's frame times. It is marked as derived, refers to its
    source, and says to be without burned-in annotation only where the source says so. UIDs are derived from the
    source's, the bundle, its weights and the pictures, so that two runs write the same bytes but for
    ``dicom_derived.CREATION_DATES``.

    Args:
        pictures: RGB, of the frames' size, one per frame.
        compress: by RLE, without loss, as are pictures of more than 4 GB in any case; milliseconds a frame where
            python-gdcm is installed, seconds otherwise.
        created: date and time to write; now by default.

    Raises:
        DicomError: if the file cannot be referred to.
        ValueError: if the pictures are not those of the case's frames.
        OutputCheckError: if what was written is not what was given.
    """
    if case.kind is CaseKind.SERIES:
        raise ValueError(f"{case.paths[0]}: captures are of stills and cines; write a volume's segmentation")
    compress = compress or case.rows * case.columns * _CHANNELS * case.frames > _MAX_ELEMENT_BYTES
    with suppress_pydicom_warnings():
        source = read_header(case.paths[0])
        check_source(source)
        dataset = _describe(case, source, algorithm, compress, created)

        def write(file: IO[bytes]) -> None:
            start = encode(dataset, case.paths[0])
            file.write(start)
            digest, last = _write_pictures(file, case, pictures, compress)
            # The instance is named by what it holds, known only now. UIDs derived so are all of one length.
            _name_instance(dataset, derive_uid("capture", dataset.SeriesInstanceUID, source.sop_uid, digest))
            file.seek(0)
            file.write(encode(dataset, case.paths[0]))
            if file.tell() != len(start):
                raise OutputCheckError(f"{output}: header of the capture has changed its length")
            file.flush()
            written = pixel_array(Path(file.name), index=case.frames - 1, raw=True)
            if not np.array_equal(written, last):
                raise OutputCheckError(f"{output}: last frame of the capture is not the last picture")

        write_atomic(output, write)


def write_frame_masks(case: DicomCase, labels: Iterable[np.ndarray], output: Path) -> None:
    """Writes the label maps of a cine's frames as ``write_mask_stack`` does.

    Args:
        labels: one per frame.

    Shape:
        - labels: (rows, columns) each.

    Raises:
        ValueError: if the label maps are not those of the case's frames, or the cine is too long for NIfTI.
    """
    shape = (case.rows, case.columns, case.frames)
    write_mask_stack(case.paths[0], _of_frames(case, labels, "label maps"), output, shape)


def _of_frames(case: DicomCase, items: Iterable[Any], name: str) -> Iterator[Any]:
    """Yields exactly as many items as the case has frames."""
    count = 0
    for item in items:
        count += 1
        if count > case.frames:
            break
        yield item
    if count != case.frames:
        found = f"more than {case.frames}" if count > case.frames else str(count)
        raise ValueError(f"{case.paths[0]}: {found} {name} for {case.frames} frames")


def _write_pictures(
    file: IO[bytes], case: DicomCase, pictures: Iterable[Image.Image], compress: bool
) -> tuple[str, np.ndarray]:
    """Writes the pixel data element; returns a digest of the pictures, and the last one."""
    total = case.rows * case.columns * _CHANNELS * case.frames
    file.write(struct.pack("<HH2sHL", *_PIXEL_DATA, b"OB", 0, _UNDEFINED_LENGTH if compress else total + total % 2))
    if compress:
        # Its table of offsets is left empty.
        file.write(struct.pack("<HHL", *_ITEM, 0))
    digest, shape = sha256(), (case.rows, case.columns, _CHANNELS)
    pixels = np.empty(shape, np.uint8)
    for picture in _of_frames(case, pictures, "pictures"):
        pixels = np.asarray(picture)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise ValueError(f"{case.paths[0]}: pictures must be RGB, {case.rows} x {case.columns}; got {pixels.shape}")
        digest.update(pixels.tobytes())
        if compress:
            frame = _encode(pixels)
            file.write(struct.pack("<HHL", *_ITEM, len(frame)) + frame)
        else:
            file.write(pixels.tobytes())
    file.write(struct.pack("<HHL", *_SEQUENCE_END, 0) if compress else b"\0" * (total % 2))
    return digest.hexdigest(), pixels


def _encode(pixels: np.ndarray) -> bytes:
    encoder = get_encoder(RLELossless)
    # gdcm 3.2 aborts the process on an odd number of bytes.
    is_quick = "gdcm" in encoder.available_plugins and pixels.size % 2 == 0
    frame: bytes = encoder.encode(
        np.ascontiguousarray(pixels),
        encoding_plugin="gdcm" if is_quick else "pydicom",
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        number_of_frames=1,
        samples_per_pixel=_CHANNELS,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="RGB",
        planar_configuration=0,
    )
    return frame + b"\0" * (len(frame) % 2)


def _name_instance(dataset: Dataset, uid: UID) -> None:
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid


def _describe(
    case: DicomCase, source: DicomHeader, algorithm: Algorithm, compress: bool, created: datetime | None
) -> Dataset:
    """The capture without its pixels."""
    made_by = algorithm.identity
    is_cine = case.kind is CaseKind.CINE
    dataset = Dataset()
    dataset.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage if is_cine else SecondaryCaptureImageStorage
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.TransferSyntaxUID = RLELossless if compress else ExplicitVRLittleEndian
    copy_patient_and_study(source, dataset)
    dataset.SeriesInstanceUID = derive_uid("capture series", *made_by, source_series_uid(source))
    _name_instance(dataset, derive_uid("capture", dataset.SeriesInstanceUID, source.sop_uid))
    dataset.SeriesNumber = positive_number(source, "SeriesNumber", _SERIES_OFFSET)
    dataset.InstanceNumber = positive_number(source, "InstanceNumber")
    dataset.SeriesDescription = short_text(f"Research only: {algorithm.name} overlay")
    dataset.Modality = case.modality or "OT"
    dataset.Laterality = source.dataset.get("Laterality") or ""
    dataset.ConversionType = "WSD"
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, short_text(algorithm.name)
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = short_text(algorithm.version), algorithm.weights_sha256
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DerivationDescription = f"Contours drawn by {short_text(algorithm.name)}. {SHORT_NOTICE}"
    dataset.ImageComments = SHORT_NOTICE
    dataset.BurnedInAnnotation = "NO" if source.dataset.get("BurnedInAnnotation") == "NO" else "YES"
    dataset.PatientOrientation = source.dataset.get("PatientOrientation") or ""
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if value := source.dataset.get(keyword):
            setattr(dataset, keyword, value)
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.sop_class_uid, source.sop_uid
    dataset.SourceImageSequence = [reference]
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = case.rows, case.columns, _CHANNELS
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    if is_cine:
        _add_frame_times(dataset, case, source)
    set_creation(dataset, created)
    return dataset


def _add_frame_times(dataset: Dataset, case: DicomCase, source: DicomHeader) -> None:
    """Times of the source's frames, or numbers where it has none."""
    dataset.NumberOfFrames = case.frames
    if (time := numbers(source.dataset, "FrameTime", 1)) and time[0] > 0:
        dataset.FrameTime = source.dataset.FrameTime
        dataset.FrameIncrementPointer = 0x00181063
    elif numbers(source.dataset, "FrameTimeVector", case.frames):
        dataset.FrameTimeVector = source.dataset.FrameTimeVector
        dataset.FrameIncrementPointer = 0x00181065
    else:
        dataset.PageNumberVector = list(range(1, case.frames + 1))
        dataset.FrameIncrementPointer = 0x00182001
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        if rate := numbers(source.dataset, keyword, 1):
            setattr(dataset, keyword, int(rate[0]))
