"""Words of messages: the notice that every result has, counts, and names of files that may hold anything."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["NOTICE", "NOT_DECODED", "SHORT_NOTICE", "escape", "guard_cell", "pluralize", "unguard_cell"]

NOTICE = "Research only. Not a medical device; not for diagnosis or treatment."

SHORT_NOTICE = "Research only. Not for diagnosis or treatment."
"""For fields of DICOM and NIfTI, which hold 64 and 80 characters."""

NOT_DECODED = "Files were not decoded: one that would be segmented may still turn out to be broken."
"""What the output of a dry run ends with."""

# Control, surrogate, line and paragraph separator: what breaks a line, or that UTF-8 does not have.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
# What spreadsheets take for a formula, and what already has the mark before it.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def pluralize(number: int, thing: str) -> str:
    """Returns how many there are of a thing: "1 case", "2 cases"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def escape(name: str) -> str:
    """Returns a file's name in one line, and in characters that UTF-8 has."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if character == "\\" or unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in name
    )


def guard_cell(text: str) -> str:
    """Returns a text with an apostrophe before it if a spreadsheet would run it as a formula; numbers stay."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguard_cell(text: str) -> str:
    """Returns the text that ``guard_cell`` was given."""
    return text[1:] if _GUARDED.match(text) else text
