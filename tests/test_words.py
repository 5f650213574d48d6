"""The words of pages, help texts, errors and docstrings: patterns that read like a translation stay away."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PATTERNS = {
    r"\b(a|one) row an? (label|case|image|file)\b": "one row per label per case",
    r"\bone (folder|mask|file) an? (class|diagnosis|image|case|metric)\b": "one folder per class",
    r"\bthe same command goes on\b": "run the same command again to resume",
    r"\bgo(es|ing)? on (from an earlier|after a stop|where it was)\b": "resumes",
    r"\bheld against\b": "compared with, checked against",
    r"\bdrawn anew\b": "re-initialised",
    r"\bwhole or not at all\b": "atomically",
    r"\b(mend|mends|mended)\b": "fix",
    r"\bthe ways? out\b": "what to do",
    r"\bbeside it\b": "next to it",
    r"\bbeside other work\b": "while other programs ran",
    r"\bturned (round|back)\b": "inverted",
    r"\ban image that is not there\b": "unknown image",
    r"\bwhere a name may stand\b": "areas that may show burned-in patient names",
    r"\bpages that are no card\b": "documentation other than model cards",
    r"\bits content says\b": "recognised by content",
    r"\bis not of a run with a bundle\b": "was not written by mobileutr",
    r"\bsee its ids with a text editor\b": "open the file to see the available ids",
    r"\bit states no\b": "the file defines no",
    r"\bNothing is to be done\b": "No action needed",
    r"\bonly so the mask fits\b": "the mask matches only after EXIF rotation",
    r"\bwithout a word\b": "silently",
    r"\bthe time that was lent\b": "not measured",
    r"\btold by (its|their) content\b": "recognised by content",
    r"\bheld to\b": "compared with, checked for",
    r"\b(row|picture|dictionary|mask|folder|thread|step|image|class) an? (thread|epoch|image|case|folder|label)\b": (
        "one row per image"
    ),
    r"\bcommand goes on from\b": "resumes from",
    r"\bwhat came of it\b": "the result",
    r"\bwas put through\b": "was tested with",
    r"\bwhatever bears\b": "every file with",
    r"\btold apart\b": "distinguished",
}
SUFFIXES = {".py", ".md", ".yaml", ".html", ".sh"}
LEFT_OUT = ("CHANGELOG.md", "tests/test_words.py", "tests/soak/results/")


def read_texts(repository: Path) -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    for name in listed.stdout.splitlines():
        path = repository / name
        if path.suffix in SUFFIXES and path.is_file() and not name.startswith(LEFT_OUT):
            yield name, path.read_text(encoding="utf-8")


def test_texts_are_plain_english(repository: Path) -> None:
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; better: {better}"
        for name, text in read_texts(repository)
        for pattern, better in PATTERNS.items()
        for match in re.finditer(pattern.replace(" ", r"\s+"), text)
    ]
    assert not found, "\n".join(found)


def test_the_readme_is_short(repository: Path) -> None:
    assert len((repository / "README.md").read_text(encoding="utf-8").splitlines()) < 150
