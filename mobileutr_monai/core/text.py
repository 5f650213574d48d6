"""Words of messages: counts, and names of files that may hold anything."""

from __future__ import annotations

import unicodedata

__all__ = ["escape", "pluralize"]

# Control, surrogate, line and paragraph separator: what breaks a line, or that UTF-8 does not have.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


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
