"""``report.parquet``: the rows of ``report.csv`` with their types, for tables of millions of rows."""

from __future__ import annotations

from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import IO, Any

from mobileutr_monai.core.atomic import write_atomic
from mobileutr_monai.core.output_folder import IN_THE_WAY
from mobileutr_monai.inference.report.csv import read_cases
from mobileutr_monai.inference.report.row import Row

__all__ = ["PARQUET", "check_parquet", "clear_parquet", "write_parquet"]

PARQUET = "report.parquet"

_ROWS_AT_ONCE = 50_000
"""Of a row group, which is what is held in memory."""
_MARK = {b"generator": b"mobileutr"}


def check_parquet(folder: Path) -> None:
    """Checks that no other ``report.parquet`` is in the output folder.

    Raises:
        ValueError: there is one that no run has written, or pyarrow is not installed.
    """
    _import_arrow()
    if (folder / PARQUET).exists() and not _is_ours(folder / PARQUET):
        raise ValueError(f"{folder / PARQUET} {IN_THE_WAY}")


def clear_parquet(folder: Path) -> None:
    """Removes the file of an earlier run, which has other rows."""
    if (folder / PARQUET).exists() and _is_ours(folder / PARQUET):
        (folder / PARQUET).unlink()


def write_parquet(folder: Path) -> Path:
    """Writes ``report.parquet`` from a finished ``report.csv``; returns it.

    Empty cells of numbers are null. Names of files that are not UTF-8 have a replacement character.

    Raises:
        ValueError: pyarrow is not installed.
    """
    arrow, parquet = _import_arrow()
    kinds = {name: _type_of(arrow, kind) for name, kind in _column_types().items()}
    schema = arrow.schema(list(kinds.items()), metadata=_MARK)

    def write(file: IO[bytes]) -> None:
        rows = (row for case in read_cases(folder / "report.csv") for row in case)
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            while some := list(islice(rows, _ROWS_AT_ONCE)):
                columns = {name: [_convert(row[name], name) for row in some] for name in kinds}
                writer.write_table(arrow.table(columns, schema=schema))

    write_atomic(folder / PARQUET, write)
    return folder / PARQUET


def _column_types() -> dict[str, type]:
    known: dict[str, type] = {"int": int, "float": float, "str": str}
    return {field.name: known[str(field.type).split(" ")[0]] for field in fields(Row)}


_TYPES = _column_types()


def _type_of(arrow: Any, kind: type) -> Any:
    return {int: arrow.int64(), float: arrow.float64(), str: arrow.string()}[kind]


def _convert(cell: str, name: str) -> Any:
    kind = _TYPES[name]
    if kind is str:
        return cell.encode(errors="surrogateescape").decode(errors="replace")
    return kind(cell) if cell else None


def _is_ours(path: Path) -> bool:
    try:
        _, parquet = _import_arrow()
        metadata = parquet.read_schema(path).metadata or {}
    except Exception:  # noqa: BLE001 - whatever pyarrow says of a file that is none of ours
        return False
    return _MARK.items() <= metadata.items()


def _import_arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError('format parquet needs pyarrow: pip install "mobileutr-monai[parquet]"') from None
    return pyarrow, parquet
