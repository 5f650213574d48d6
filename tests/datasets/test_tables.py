"""Tables as people and spreadsheets leave them."""

from __future__ import annotations

import codecs
import unicodedata
from pathlib import Path

import pytest

from mobileutr_monai.datasets.tables import read_column, read_lines

KEYS = {f"p{number}": [f"p{number}", f"p{number}.png"] for number in range(3)}
GROUPS = {"p0": "pät0", "p1": "pät0", "p2": "pät1"}
PLAIN = "image,group\np0.png,pät0\np1.png,pät0\np2.png,pät1\n"

# The same table in other forms.
FORMS: dict[str, bytes] = {
    "plain": PLAIN.encode(),
    "a byte order mark": codecs.BOM_UTF8 + PLAIN.encode(),
    "semicolons, as Excel in Europe": PLAIN.replace(",", ";").encode(),
    "semicolons in Windows-1252": PLAIN.replace(",", ";").encode("cp1252"),
    "Windows-1252": PLAIN.encode("cp1252"),
    "Unicode text of Excel": PLAIN.replace(",", "\t").encode("utf-16"),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "a line that names the separator": ("sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n")).encode(),
    "blanks around values": PLAIN.replace("pät0", "pät0 ").replace(",", " , ").encode(),
    "a no-break space": PLAIN.replace("pät0\np1", "pät0\u00a0\np1").encode(),
    "blanks around the header": PLAIN.replace("image,group", "Image , Group").encode(),
    "empty lines and cells": (PLAIN.replace("\n", "\n\n") + ",,\n , \n").encode(),
    "letters and accents apart": unicodedata.normalize("NFD", PLAIN).encode(),
    "quotes": PLAIN.replace("pät0", '"pät0"').encode(),
    "the same row twice": (PLAIN + "p0.png,pät0\n").encode(),
    "another column": PLAIN.replace("group", "group,age").replace("pät1", "pät1,5").encode(),
    "names with and without suffix": PLAIN.replace("p1.png", "p1").encode(),
    "carriage returns alone": PLAIN.replace("\n", "\r").encode(),
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_reads_a_table_in_any_form(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    assert read_column(tmp_path / "t.csv", "group", KEYS) == GROUPS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN + "p0.png,pät1\n", r"line 5: 'p0.png' has the group 'pät1', but 'pät0' in line 2; remove one of them"),
        (PLAIN + "p0,pät1\n", r"lines 5 and 2: 'p0' and 'p0.png' are the same image, with the group 'pät1' and 'pät0'"),
        (PLAIN.replace("p1.png,pät0", "p1.png,pät0,x,y"), "line 3: 4 cells, the header has 2; put quotes around"),
        (PLAIN.replace("group", "patient"), "line 1: the table must have the columns image and group, got"),
        ("", "must have the columns image and group, and one row per image"),
        (PLAIN.replace("p2.png", "p9.png"), "has no group for 1 image, for example 'p2'; add the rows"),
    ],
)
def test_names_the_file_and_the_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_column(path, "group", KEYS)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0\0", b"image,group\np\x81,1\n", bytes(99)])
def test_names_a_file_that_is_no_text(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(ValueError, match=r"t\.csv is not text in UTF-8, UTF-16 or Windows-1252; save it as CSV UTF-8"):
        read_column(tmp_path / "t.csv", "group", KEYS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_reads_a_list_of_names_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "train1.txt").write_text("ä\n\n b \r\nc", encoding=encoding)
    assert read_lines(tmp_path / "train1.txt") == ["ä", "b", "c"]
