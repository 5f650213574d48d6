"""DICOM headers: what a file is, found by its content and without its pixels.

Nothing that identifies a patient is read into an error, a log or a result: paths and UIDs only.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    AllTransferSyntaxes,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    MediaStorageDirectoryStorage,
    MPEGTransferSyntaxes,
    VLWholeSlideMicroscopyImageStorage,
)

from mobileutr_monai.core.limits import (
    MAX_HEADER_BYTES,
    MAX_HEADER_ELEMENTS,
    MAX_IMAGE_PIXELS,
    MAX_INFLATED_BYTES,
    BoundedReader,
)
from mobileutr_monai.core.reasons import Reason
from mobileutr_monai.core.text import pluralize
from mobileutr_monai.readers.dicom.errors import DicomError, as_dicom_errors
from mobileutr_monai.readers.dicom.jpeg_headers import find_stream_syntax

__all__ = [
    "DicomHeader",
    "check_image",
    "frame_attributes",
    "is_dicom",
    "numbers",
    "read_header",
]

_PREAMBLE = 128
# Bytes that are inflated at once, and that they may become at once.
_DEFLATED_CHUNK, _CHUNK = 2**16, 2**20
# An element takes two reads: what it is, and its value.
_READS = 2
# A sequence of so many bytes an element is read at once, and taken apart when it is asked for.
_ELEMENT_BYTES = 64
_ITEM_GROUP = 0xFFFE
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
# Least bytes of an encapsulated frame: the tag and the length of its fragment.
_FRAGMENT_BYTES = 8
# Longest first value, in bytes, of a data set without preamble and value representations.
_MAX_FIRST_VALUE = 1024
_SUBSAMPLED = ("YBR_FULL_422", "YBR_PARTIAL_422")
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXEL_KEYWORDS = {
    (0x7FE0, 0x0008): "FloatPixelData",
    (0x7FE0, 0x0009): "DoubleFloatPixelData",
    (0x7FE0, 0x0010): "PixelData",
}
# Standard objects whose pixels are not an image of a patient: the names of their SOP classes begin so.
_NOT_IMAGES = ("Segmentation", "Label Map Segmentation", "RT Dose", "Surface", "Tractography")
# Encodings and what installs a decoder for them; the last ones have none.
_PACKAGES = (
    (frozenset(JPEGLSTransferSyntaxes), "pip install pyjpegls"),
    (frozenset((HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL)), "pip install pylibjpeg pylibjpeg-openjpeg"),
    (frozenset(JPEG2000TransferSyntaxes), "pip install python-gdcm"),
    (frozenset(JPEGTransferSyntaxes), "pip install python-gdcm"),
    (frozenset(MPEGTransferSyntaxes), "no Python package decodes it as DICOM; transcode it with ffmpeg first"),
)
_NO_PACKAGE = "no package is known to decode it; transcode it with dcmtk or gdcm first"


@dataclass(frozen=True)
class DicomHeader:
    """A DICOM file up to its pixels.

    Attributes:
        path: the file.
        dataset: what was read of the header.
        syntax: UID of the encoding; read from the data where the file does not say it, or says another one.
        declares_syntax: whether the file says its encoding, rightly.
        pixels: keyword of the element that holds the pixels, empty if there is none.
        pixel_place: where in the file the value of that element begins; of a deflated file it is not known.
        pixel_bytes: length of that element, None if it is encapsulated.
        available_bytes: bytes of it that the file holds.
    """

    path: Path
    dataset: Dataset
    syntax: Any
    declares_syntax: bool
    pixels: str
    pixel_place: int
    pixel_bytes: int | None
    available_bytes: int

    @property
    def sop_class_uid(self) -> str:
        return self._uid("SOPClassUID", "MediaStorageSOPClassUID")

    @property
    def sop_uid(self) -> str:
        return self._uid("SOPInstanceUID", "MediaStorageSOPInstanceUID")

    def _uid(self, keyword: str, meta_keyword: str) -> str:
        return str(self.dataset.get(keyword) or self.dataset.file_meta.get(meta_keyword) or "")

    @property
    def modality(self) -> str:
        return str(self.dataset.get("Modality") or "")

    @property
    def rows(self) -> int:
        return int(self.dataset.Rows)

    @property
    def columns(self) -> int:
        return int(self.dataset.Columns)

    @property
    def samples(self) -> int:
        return int(self.dataset.get("SamplesPerPixel") or 1)

    @property
    def frames(self) -> int:
        return int(self.dataset.get("NumberOfFrames") or 1)


def is_dicom(path: str | Path) -> bool:
    """Whether a file's content is DICOM, whatever its name: with the usual preamble, or a data set without one."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(_PREAMBLE + 4)
        if start[_PREAMBLE:] == b"DICM":
            return True
        return _may_be_data_set(start) and len(read_header(path, ("SOPClassUID", "Modality", "Rows")).dataset) > 0
    except (OSError, DicomError):
        return False


def read_header(path: str | Path, keywords: Sequence[str] | None = None) -> DicomHeader:
    """Reads a DICOM file up to its pixels.

    Args:
        path: any file.
        keywords: the only attributes to read, which is faster.

    Raises:
        DicomError: if it is no DICOM, or broken.
    """
    path = Path(path)
    tags = None if keywords is None else list(keywords)
    with as_dicom_errors(path, Reason.BAD_HEADER), _HeaderReader(path) as file:
        start = file.read(_PREAMBLE + 4)
        if start[_PREAMBLE:] != b"DICM" and not _may_be_data_set(start):
            raise DicomError(path, Reason.NOT_DICOM)
        file.seek(0)
        dataset = dcmread(file, stop_before_pixels=True, force=True, specific_tags=tags)
        _drop_stray_items(dataset)
        _check_sequences(path, dataset)
        # Values are converted when they are first asked for: what cannot be is found here, but only in what is needed.
        for part in (dataset.file_meta, dataset if tags else Dataset()):
            for element in part:
                element.value  # noqa: B018
        keyword, length, implicit = _find_deflated_pixels(path) if file.deflated else _find_pixels(file, dataset)
        place = file.tell()
        available = length if file.deflated else file.size - place
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        stream_syntax = None
        if length == _UNDEFINED_LENGTH and not file.deflated:
            stream_syntax = find_stream_syntax(file, place, str(syntax or ""))
    little = dataset.original_encoding[1]
    # Some files say one encoding and have another, which pydicom notices, except at the pixels.
    declared = syntax in AllTransferSyntaxes and (syntax.is_implicit_VR, syntax.is_little_endian) == (implicit, little)
    if stream_syntax is not None:
        syntax, declared = stream_syntax, False
    elif not syntax:
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        syntax = ImplicitVRLittleEndian if implicit else explicit
    bytes_declared = None if length == _UNDEFINED_LENGTH else length
    return DicomHeader(path, dataset, syntax, declared, keyword, place, bytes_declared, available)


def check_image(header: DicomHeader) -> None:
    """Says whether a file holds an image that can be decoded, from its header alone.

    Raises:
        DicomError: with the reason why not.
    """
    with as_dicom_errors(header.path, Reason.INCOMPLETE):
        reason, detail = _find_fault(header)
    if reason is not None:
        raise DicomError(header.path, reason, detail)


def frame_attributes(dataset: Dataset, index: int) -> Dataset:
    """The attributes of one frame: those of its functional groups, and the shared ones, beside the data set's own."""
    groups = [*(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]]
    groups += (dataset.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    if not groups:
        return dataset
    frame = Dataset()
    frame.update(dataset.group_dataset(0x0028))
    frame.Modality = dataset.get("Modality") or ""
    frame.set_original_encoding(*dataset.original_encoding)
    for group in groups:
        for element in group:
            if element.VR == "SQ" and element.value:
                frame.update(element.value[0])
    return frame


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """An attribute's finite numbers, None if there are not exactly so many."""
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            return None
        result = tuple(float(v) for v in (value if isinstance(value, Iterable) else [value]))
    except (TypeError, ValueError, OverflowError):
        return None
    return result if len(result) == count and all(map(math.isfinite, result)) else None


def _find_fault(header: DicomHeader) -> tuple[Reason | None, str]:
    sop_class, name = header.sop_class_uid, UID(header.sop_class_uid).name
    if sop_class == MediaStorageDirectoryStorage or "DirectoryRecordSequence" in header.dataset:
        return Reason.DICOMDIR, ""
    if name.startswith(_NOT_IMAGES) or (sop_class and not header.pixels and "Image Storage" not in name):
        return Reason.NOT_AN_IMAGE_OBJECT, name
    if not header.pixels:
        return Reason.NO_PIXELS, name or "and no SOP class"
    needed = ["Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"]
    missing = [keyword for keyword in needed if not header.dataset.get(keyword)]
    if missing:
        return Reason.INCOMPLETE, f"no {', '.join(missing)}"
    bits = int(header.dataset.BitsAllocated)
    if bits != 1 and bits % 8:
        return Reason.INCOMPLETE, f"BitsAllocated is {bits}"
    if header.samples not in (1, 3):
        return Reason.UNSUPPORTED_IMAGE, f"{header.samples} samples a pixel"
    total = (header.dataset.get("TotalPixelMatrixRows") or 0, header.dataset.get("TotalPixelMatrixColumns") or 0)
    if sop_class == VLWholeSlideMicroscopyImageStorage and (total[0] > header.rows or total[1] > header.columns):
        return Reason.UNSUPPORTED_IMAGE, "tiles of a whole slide"
    high_bit, bits_stored = header.dataset.get("HighBit"), int(header.dataset.get("BitsStored") or bits)
    if high_bit is not None and not bits_stored - 1 <= int(high_bit) < bits:
        return Reason.INCOMPLETE, f"HighBit is {int(high_bit)}, BitsStored {bits_stored}, BitsAllocated {bits}"
    if header.frames < 1:
        return Reason.INCOMPLETE, f"NumberOfFrames is {header.frames}"
    if header.rows * header.columns > MAX_IMAGE_PIXELS:
        declared = f"{header.rows} x {header.columns} pixels a frame"
        return Reason.TOO_LARGE, f"{declared}, limit {MAX_IMAGE_PIXELS}"
    frame = header.rows * header.columns * header.samples
    return _find_syntax_fault(header, -(-frame * bits * header.frames // 8))


def _find_syntax_fault(header: DicomHeader, needed_bytes: int) -> tuple[Reason | None, str]:
    syntax = UID(header.syntax)
    package = next((way for syntaxes, way in _PACKAGES if syntax in syntaxes), _NO_PACKAGE)
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        return Reason.UNSUPPORTED_SYNTAX, f"{syntax.name} ({syntax}): {package}"
    if header.pixel_bytes is None and not syntax.is_encapsulated:
        return Reason.UNSUPPORTED_SYNTAX, "compressed, and the file does not say how"
    # Two bytes of three are kept of subsampled colours.
    least = needed_bytes * 2 // 3 if header.dataset.PhotometricInterpretation in _SUBSAMPLED else needed_bytes
    held = min(header.pixel_bytes or 0, header.available_bytes)
    if not syntax.is_encapsulated and held < least:
        return Reason.BAD_PIXELS, f"{held} bytes of pixels, {least} are needed"
    frame_bytes = needed_bytes // header.frames
    # One byte more makes the length even.
    if not syntax.is_encapsulated and held - needed_bytes >= max(2, frame_bytes):
        frames = f"{held / frame_bytes:.4g} frames" if frame_bytes else "more"
        detail = f"{frames} of pixels, the header declares {header.frames}; correct NumberOfFrames or SamplesPerPixel"
        return Reason.BAD_PIXELS, detail
    if syntax.is_encapsulated and header.available_bytes < header.frames * _FRAGMENT_BYTES:
        return Reason.BAD_PIXELS, f"{pluralize(header.frames, 'frame')} in {header.available_bytes} bytes"
    return None, ""


def _drop_stray_items(dataset: Dataset) -> None:
    """Leaves out items between elements, as sequences whose length is wrongly 0 leave them; nothing is in them."""
    for tag in [tag for tag in dataset.keys() if tag.group == _ITEM_GROUP]:  # noqa: SIM118 - as in _check_sequences
        del dataset[tag]


def _find_pixels(file: BinaryIO, dataset: Dataset) -> tuple[str, int, bool]:
    """Keyword and length of the element at which reading stopped, and whether it has no value representation."""
    implicit, little = dataset.original_encoding
    order = "<" if little else ">"
    head = file.read(8)
    keyword = _PIXEL_KEYWORDS.get(struct.unpack(f"{order}HH", head[:4]), "") if len(head) == 8 else ""
    if head and not keyword:
        place = file.tell() - len(head)
        detail = f"a delimiter outside of a sequence ends it before byte {place}; repair it, for example with dcmconv"
        raise DicomError(Path(file.name), Reason.BAD_HEADER, detail)
    if not keyword:
        return "", 0, bool(implicit)
    # As a length these would be odd, which none is.
    implicit = head[4:6] not in (b"OB", b"OW", b"OF", b"OD")
    return keyword, struct.unpack(f"{order}L", head[4:] if implicit else file.read(4))[0], implicit


def _find_deflated_pixels(path: Path) -> tuple[str, int, bool]:
    with _HeaderReader(path) as file:
        dataset = dcmread(file, specific_tags=list(_PIXEL_KEYWORDS.values()))
    return next(((k, len(dataset[k].value), False) for k in _PIXEL_KEYWORDS.values() if k in dataset), ("", 0, False))


class _HeaderReader(BoundedReader):
    """A DICOM file that ends reading its header where that takes more than the limits.

    Attributes:
        deflated: whether pydicom read all there is at once, which it does to inflate it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path, self.deflated = path, False
        self._reads = self._bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is None or size < 0:
            self.deflated = True
            _check_inflated_size(self.path, data)
            return data
        self._reads += 1
        self._bytes += len(data)
        if self._reads > _READS * MAX_HEADER_ELEMENTS:
            raise DicomError(self.path, Reason.TOO_LARGE, f"a header of more than {MAX_HEADER_ELEMENTS} elements")
        if self._bytes > MAX_HEADER_BYTES:
            raise DicomError(self.path, Reason.TOO_LARGE, f"a header of more than {MAX_HEADER_BYTES} bytes")
        return data


def _check_inflated_size(path: Path, deflated: bytes) -> None:
    """Inflates piece by piece, keeping nothing."""
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for start in range(0, len(deflated), _DEFLATED_CHUNK):
        rest = deflated[start : start + _DEFLATED_CHUNK]
        while rest and not inflater.eof and total <= MAX_INFLATED_BYTES:
            total += len(inflater.decompress(rest, _CHUNK))
            rest = inflater.unconsumed_tail
    if total > MAX_INFLATED_BYTES:
        raise DicomError(path, Reason.TOO_LARGE, f"inflates to more than {MAX_INFLATED_BYTES} bytes")


def _check_sequences(path: Path, dataset: Dataset) -> None:
    """Checks sequences of a known length, which are not taken apart yet, against the limit on elements."""
    for tag in dataset.keys():  # noqa: SIM118 - a data set's own iterator takes them apart
        value = dataset.get_item(tag).value
        if not isinstance(value, bytes) or len(value) < MAX_HEADER_ELEMENTS:
            continue
        if dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ":
            items = max(value.count(item) for item in _ITEMS)
            if len(value) > _ELEMENT_BYTES * MAX_HEADER_ELEMENTS or items > MAX_HEADER_ELEMENTS:
                detail = f"a sequence of {len(value)} bytes and {items} items"
                raise DicomError(path, Reason.TOO_LARGE, detail)


def _may_be_data_set(start: bytes) -> bool:
    """Whether bytes may be the first element of a data set: of group 2 or 8, short, or with a value representation."""
    for order in "<>":
        if len(start) >= 8 and struct.unpack(f"{order}H", start[:2])[0] in (0x0002, 0x0008):
            is_explicit = start[4:6].isalpha() and start[4:6].isupper()
            return is_explicit or (order == "<" and struct.unpack("<L", start[4:8])[0] <= _MAX_FIRST_VALUE)
    return False
