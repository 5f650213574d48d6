"""What to do about a case without a result: a sentence for every reason."""

from __future__ import annotations

from mobileutr_monai.inference.measure import Reason
from mobileutr_monai.readers.archives import ArchiveReason
from mobileutr_monai.readers.dicom.errors import DicomReason

__all__ = ["remedy_for"]

NOT_NEEDED = "Nothing is to be done: it holds no image."
EXPORT_AGAIN = "Export or copy it again from where it came from."
ONE_SERIES = "Put each series into a folder of its own, or export it again."

REMEDIES = {
    "not an image": NOT_NEEDED,
    "in a folder of results": "Nothing is to be done: it is the result of an earlier run.",
    "folder cannot be read": "Ask for permission to read it, or copy it to where you may.",
    "cannot be read": "Ask for permission to read it, or copy it to where you may.",
    "broken link": "Put the file there that the link names, or remove the link.",
    "a link to a folder": "Links to folders are not followed: give the folder itself.",
    "not a file": NOT_NEEDED,
    Reason.UNREADABLE: "Open it in a viewer; if that fails too, copy or export it again.",
    Reason.DIMENSION: "Use a bundle for this kind of data.",
    Reason.MODALITY: "Use a bundle for this modality, or take it all the same with --any-modality.",
    Reason.CHANGED: "Run the same command again when nothing writes to the file.",
    Reason.CRASH: "The file broke its decoder: copy or export it again, or convert it with another program.",
    Reason.TIME: "Give it more time with --time-limit.",
    Reason.MEMORY: "Give it more memory with --memory-limit, or make the image smaller.",
    Reason.NETWORK: "Try a smaller --batch-size; if that does not help, report it with the detail above.",
    Reason.OUTPUT: "See that the output folder can be written to, and run the same command again.",
    DicomReason.NOT_DICOM: NOT_NEEDED,
    DicomReason.DICOMDIR: "Nothing is to be done: the files that it lists are cases of their own.",
    DicomReason.NOT_AN_IMAGE: NOT_NEEDED,
    DicomReason.UNREADABLE: EXPORT_AGAIN,
    DicomReason.NO_PIXELS: "Export it again with its pixels.",
    DicomReason.INCOMPLETE: "Export it again: what is named above is missing from its header.",
    DicomReason.TOO_LARGE: "Cut it into parts; if the size above is not true, the header is broken: export it again.",
    DicomReason.UNSUPPORTED_SYNTAX: "Export it uncompressed, or as JPEG or JPEG 2000.",
    DicomReason.UNSUPPORTED_IMAGE: "Export it as an ordinary image, in grey or RGB.",
    DicomReason.BAD_PIXELS: EXPORT_AGAIN,
    DicomReason.MIXED_SERIES: ONE_SERIES,
    DicomReason.MIXED_SIZES: ONE_SERIES,
    DicomReason.MIXED_ORIENTATIONS: "Take the scouts out, or put slices of one orientation into a folder of their own.",
    DicomReason.DUPLICATE_POSITIONS: "Take out slices that are there twice, or separate the phases of the series.",
    DicomReason.SLICE_GAP: "Look for slices that were not copied; nothing is filled in.",
    DicomReason.NOT_A_VOLUME: "Use a bundle for images, or a series with positions and orientations.",
    DicomReason.NOT_ONE_FRAME: "Export its frames as files of their own.",
    ArchiveReason.NOT_OPENED: "Unpack it into the folder, and run the same command again.",
    ArchiveReason.EMPTY: NOT_NEEDED,
    ArchiveReason.BROKEN: EXPORT_AGAIN,
    ArchiveReason.ENCRYPTED: "Unpack it with its password.",
    ArchiveReason.TOO_LARGE: "Unpack it into the folder yourself.",
    ArchiveReason.OVERLAPPING: "It was made to mislead, or is broken: ask whom it came from.",
    ArchiveReason.NO_SPACE: "Make room on the disk of the output folder, and run the same command again.",
    ArchiveReason.UNSAFE: "Unpack it yourself, if you know whom it came from.",
    ArchiveReason.UNREADABLE: EXPORT_AGAIN,
    ArchiveReason.NESTED: "Unpack the inner archive into the folder.",
}


def remedy_for(reason: str) -> str:
    """Returns the sentence for a reason of ``report.csv``; empty for none, and for one that is not known."""
    return REMEDIES.get(reason, "")
