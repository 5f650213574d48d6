"""Tables that people make: CSV files of any spreadsheet, and lists of names."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mobileutr_monai.core.text import pluralize

__all__ = ["TableCase", "compose", "is_table", "normalize", "read_cases", "read_column", "read_lines"]

_SEPARATORS = ",;\t|"
SECTIONS = {
    "training": "training",
    "train": "training",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "testing": "testing",
    "test": "testing",
}
"""What may stand in a column ``split`` -> section of the list."""

_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


class TableCase(NamedTuple):
    """A row of a table of cases, or several rows of one image."""

    line: int
    image: Path
    masks: list[Path]
    group: str
    kind: str
    split: str


def is_table(path: str | Path) -> bool:
    """Whether a path is called like a table of cases."""
    return Path(path).suffix.lower() in (".csv", ".tsv")


def compose(name: str) -> str:
    """Returns a name in Unicode's composed form: macOS hands out names with letters and accents apart."""
    return unicodedata.normalize("NFC", name)


def normalize(name: str) -> str:
    """Returns a name in Unicode's composed form and without blanks around it."""
    return compose(name).strip()


def read_text(path: Path) -> str:
    """Returns a text in UTF-8, UTF-16 or, as Excel writes it, Windows-1252.

    Raises:
        ValueError: it is none of these.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    for name in (encoding, "cp1252"):
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise ValueError(f"{path} is not text in UTF-8, UTF-16 or Windows-1252; save it as CSV UTF-8")


def read_lines(path: Path) -> list[str]:
    """Returns the names in a list, one per line, without blanks around them and without empty lines.

    Raises:
        ValueError: it is no text.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_column(path: Path, column: str, keys: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Returns the values of a column for images, from a CSV file with a column ``image``.

    The separator is a comma, semicolon, tab or bar. Blanks around values do not count, nor does the case of the header.
    Rows without a value, and rows of other images, are left out.

    Args:
        column: name of the column.
        keys: name of an image -> what it may be called in the table.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column or an image is missing, or two rows contradict each other; the message has file and line.
    """
    wanted = f"the columns image and {column}"
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} does not exist; give a CSV file with {wanted}")
    values: dict[str, tuple[str, int]] = {}
    for line, image, value in _read_rows(path, column, wanted):
        earlier = values.setdefault(image, (value, line))
        if earlier[0] != value:
            raise ValueError(
                f"{path}, line {line}: {image!r} has the {column} {value!r}, but {earlier[0]!r} in line "
                f"{earlier[1]}; remove one of them"
            )
    found: dict[str, str] = {}
    for name, aliases in keys.items():
        given = {alias: values[alias] for alias in map(normalize, aliases) if alias in values}
        if len({value for value, _ in given.values()}) > 1:
            (first, one), (second, other), *_ = given.items()
            raise ValueError(
                f"{path}, lines {one[1]} and {other[1]}: {first!r} and {second!r} are the same image, with the "
                f"{column} {one[0]!r} and {other[0]!r}; remove one of them"
            )
        if given:
            found[name] = next(iter(given.values()))[0]
    missing = sorted(keys.keys() - found.keys())
    if missing:
        images = pluralize(len(missing), "image")
        raise ValueError(f"{path} has no {column} for {images}, for example {missing[0]!r}; add the rows")
    return found


def read_cases(path: Path) -> list[TableCase]:
    """Returns the cases of a CSV table: columns ``image`` and ``mask``, perhaps ``group``, ``class`` and ``split``.

    Paths are relative to the table's folder. Several rows of an image name several masks of it, one per label in order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, rows contradict each other, or a column has values in some rows only; the
            message has file and line.
    """
    wanted = "the columns image and mask, and perhaps group, class and split"
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} does not exist; give a CSV file with {wanted}")
    cases: dict[str, TableCase] = {}
    for line, row in _read_table(path, ("image", "mask"), wanted):
        if not row["image"]:
            raise ValueError(f"{path}, line {line}: the image is empty; fill it in or remove the row")
        image = path.parent / row["image"].replace("\\", "/")
        split = SECTIONS.get(row.get("split", "").lower(), "")
        if row.get("split") and not split:
            raise ValueError(f"{path}, line {line}: split is {row['split']!r}; write one of {', '.join(SECTIONS)}")
        new = TableCase(line, image, [], row.get("group", ""), row.get("class", ""), split)
        case = cases.setdefault(str(image), new)
        for column, one, other in (
            ("group", case.group, new.group),
            ("class", case.kind, new.kind),
            ("split", case.split, new.split),
        ):
            if one != other:
                raise ValueError(
                    f"{path}, lines {case.line} and {line}: {row['image']!r} has the {column} {one!r} and {other!r}"
                )
        mask = path.parent / row["mask"].replace("\\", "/")
        if row["mask"] and mask in case.masks:
            raise ValueError(f"{path}, lines {case.line} and {line} are the same; remove one of them")
        if row["mask"]:
            case.masks.append(mask)
    found = list(cases.values())
    if not found:
        raise ValueError(f"{path} has no rows; it must have {wanted}, and one row per image")
    for column, values in (
        ("group", [case.group for case in found]),
        ("class", [case.kind for case in found]),
        ("split", [case.split for case in found]),
    ):
        if any(values) and not all(values):
            line = found[values.index("")].line
            raise ValueError(f"{path}, line {line}: {column} is empty, other rows have one; fill it in for all or none")
    return found


def _read_rows(path: Path, column: str, wanted: str) -> Iterator[tuple[int, str, str]]:
    """Yields line, image and value of the rows that have both."""
    for line, row in _read_table(path, ("image", column), wanted):
        if row["image"] and row[column]:
            yield line, row["image"], row[column]


def _read_table(path: Path, columns: Sequence[str], wanted: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields line and column -> value, column names in small letters, of the rows that are not empty.

    Raises:
        ValueError: the table lacks one of ``columns``, or is none.
    """
    text = read_text(path)
    header = next((line for line in text.splitlines() if line.strip()), "")
    if header.lower().startswith("sep="):  # as Excel reads and writes it
        separator, text = header[4:5], text.replace(header, "", 1)
    else:
        separator = max(_SEPARATORS, key=header.count)
    places: dict[str, int] = {}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator or ",", skipinitialspace=True)
    try:
        for row in reader:
            cells = [normalize(cell) for cell in row]
            if not any(cells):
                continue
            if not places:
                places = {cell.lower(): place for place, cell in enumerate(cells)}
                if not set(columns) <= places.keys():
                    raise ValueError(f"{path}, line {reader.line_num}: the table must have {wanted}, got {cells}")
                continue
            if len(cells) > len(places) and any(cells[len(places) :]):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, the header has {len(places)}; put quotes "
                    f"around values with {separator!r}"
                )
            cells += [""] * (len(places) - len(cells))
            yield reader.line_num, {name: cells[place] for name, place in places.items()}
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
    if not places:
        raise ValueError(f"{path} must have {wanted}, and one row per image")
