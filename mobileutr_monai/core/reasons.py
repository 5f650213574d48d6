"""Why a file or a case has no result, and what to do about it: the one table of reasons."""

from __future__ import annotations

from enum import Enum

__all__ = ["CaseError", "Reason", "remedy_for"]

_NO_ACTION = "No action needed: the file contains no image."
_EXPORT_AGAIN = "Export or copy it again from its source."
_ONE_SERIES = "Put each series into its own folder, or export it again."


class Reason(str, Enum):
    """Why something has no result, in the words of ``report.csv``.

    Attributes:
        remedy: what to do about it, in a sentence.
        is_skip: nothing is wrong with the file: it contains no image, or its images are not for this run.
    """

    remedy: str
    is_skip: bool

    def __new__(cls, text: str, remedy: str, is_skip: bool = False) -> Reason:
        member = str.__new__(cls, text)
        member._value_ = text
        member.remedy, member.is_skip = remedy, is_skip
        return member

    def __str__(self) -> str:
        return str(self.value)

    # A case of a run.
    UNREADABLE = ("unreadable image", "Open it in a viewer; if that fails too, copy or export it again.")
    DIMENSION = ("not for this bundle's dimensions", "Use a bundle for this kind of data.", True)
    MODALITY = ("not this bundle's modality", "Use a bundle for this modality, or accept it with --any-modality.", True)
    CHANGED = ("input changed", "Run the same command again when no other program writes to the file.")
    CRASH = (
        "decoder crashed",
        "The file crashed its decoder: copy or export it again, or convert it with another program.",
    )
    TIME = ("took too long", "Allow more time with --time-limit.")
    MEMORY = ("needs too much memory", "Allow more memory with --memory-limit, or make the image smaller.")
    NETWORK = ("network failed", "Try a smaller --batch-size; if that does not help, report it with the detail above.")
    OUTPUT = ("output cannot be written", "Check that the output folder is writable, and run the same command again.")
    IN_THE_WAY = ("a file is in the way", "Move it out of the output folder, or choose another output folder.")

    NOT_DELIVERED = (
        "result cannot be delivered",
        "Check the output's server and your permission to write there, and run the same command again.",
    )

    # A file of a list, a bucket or a server.
    NOT_FOUND = ("file not found", "Correct the list, or copy the file to where the list says.")
    NOT_FETCHED = (
        "cannot be fetched",
        "Check the server and your permission to read there, and run the same command again.",
    )

    # A file of a folder.
    NOT_AN_IMAGE = ("not an image", _NO_ACTION, True)
    FOREIGN_FORMAT = ("format not supported", "Convert it as the detail above says.", True)
    RESULT = ("in a folder of results", "No action needed: it is the result of an earlier run.", True)
    FOLDER = ("folder cannot be read", "Get permission to read it, or copy it to a folder that you can read.")
    FILE = ("cannot be read", "Get permission to read it, or copy it to a folder that you can read.")
    BROKEN_LINK = ("broken link", "Put the missing file where the link points to, or remove the link.")
    FOLDER_LINK = ("a link to a folder", "Links to folders are not followed: pass the folder itself.", True)
    SYSTEM_FOLDER = (
        "a folder of the system",
        "No action needed: storage keeps thumbnails or deleted files there.",
        True,
    )
    NOT_A_FILE = ("not a file", _NO_ACTION, True)

    # DICOM.
    NOT_DICOM = ("not a DICOM file", _NO_ACTION, True)
    DICOMDIR = ("a DICOMDIR", "No action needed: the files that it lists are cases of their own.", True)
    NOT_AN_IMAGE_OBJECT = ("not an image object", _NO_ACTION, True)
    BAD_HEADER = ("unreadable header", _EXPORT_AGAIN)
    NO_PIXELS = ("no pixel data", "Export it again with its pixels.")
    INCOMPLETE = ("incomplete image description", "Export it again: the header lacks what is named above.")
    TOO_LARGE = ("too large", "Split it; if the size above is wrong, the header is broken: export it again.")
    UNSUPPORTED_SYNTAX = ("unsupported transfer syntax", "Export it uncompressed, or as JPEG or JPEG 2000.")
    UNSUPPORTED_IMAGE = ("unsupported kind of image", "Export it as an ordinary greyscale or RGB image.")
    BAD_PIXELS = ("pixels cannot be decoded", _EXPORT_AGAIN)
    MIXED_SERIES = ("more than one series or image", _ONE_SERIES)
    MIXED_SIZES = ("mixed sizes in a series", _ONE_SERIES)
    MIXED_ORIENTATIONS = (
        "mixed orientations in a series",
        "Remove the scout images, or put the slices of one orientation into their own folder.",
    )
    DUPLICATE_POSITIONS = (
        "duplicate positions in a series",
        "Remove slices that are there twice, or separate the phases of the series.",
    )
    DUPLICATE_UIDS = (
        "files that share a SOP instance UID",
        "Export it again: every slice needs a SOPInstanceUID of its own.",
    )
    SLICE_GAP = ("unevenly spaced slices", "Look for slices that were not copied; missing slices are not filled in.")
    NOT_A_VOLUME = ("not a volume", "Use a bundle for images, or a series with positions and orientations.")
    NOT_ONE_FRAME = ("more than one frame", "Export its frames as separate files.")

    # Archives.
    ARCHIVE = ("an archive", "Unpack it into the folder, and run the same command again.", True)
    EMPTY_ARCHIVE = ("an empty archive", _NO_ACTION, True)
    BROKEN_ARCHIVE = ("broken archive", _EXPORT_AGAIN)
    ENCRYPTED_ARCHIVE = ("encrypted archive", "Unpack it with its password.")
    ARCHIVE_TOO_LARGE = ("archive too large", "Unpack it into the folder yourself.")
    OVERLAPPING_MEMBERS = (
        "members of the archive overlap",
        "The archive is broken or was made to mislead: ask whoever sent it.",
    )
    NO_SPACE = (
        "no space for what is in the archive",
        "Free space on the disk of the output folder, and run the same command again.",
    )
    UNSAFE_MEMBER = ("unsafe archive member", "Unpack it yourself, if you trust whoever sent it.")
    UNREADABLE_MEMBER = ("unreadable archive member", _EXPORT_AGAIN)
    NESTED_ARCHIVE = ("an archive in an archive", "Unpack the inner archive into the folder.")


def remedy_for(reason: str) -> str:
    """Returns what to do about a reason of ``report.csv``; empty for none, and for an unknown one."""
    return next((known.remedy for known in Reason if known.value == reason), "")


class CaseError(Exception):
    """A case that has no result.

    Args:
        detail: one line.
        skipped: nothing is wrong with the case, it is not for this run.
    """

    def __init__(self, reason: Reason, detail: str = "", skipped: bool = False) -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason, self.detail, self.skipped = reason, detail, skipped

    def __reduce__(self) -> tuple[type[CaseError], tuple[Reason, str, bool]]:
        return type(self), (self.reason, self.detail, self.skipped)
