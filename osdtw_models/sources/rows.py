"""List files, line by line: "path label" as the field publishes them, or CSV with labels or class names."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from osdtw_models.pixels import IMAGE_SUFFIXES

PATH_COLUMNS = ("path", "file", "filename", "image")
LABEL_COLUMNS = ("label", "class", "class_name", "target")


@dataclass(frozen=True)
class Row:
    """One image of a list.

    Args:
        line: Its line in the file, from 1.
        path: Its path below the image root, as written.
        label: Its label as written: a number or a class name.
    """

    line: int
    path: str
    label: str


def read_rows(file: Path) -> list[Row]:
    """Read a list file.

    Args:
        file: A CSV file if its name ends so (two columns, or a header that names them), else lines "path label".

    Returns:
        Its rows; empty lines are skipped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file or a line cannot be understood; names the line.
    """
    text = read_text(file)
    rows = _csv_rows(file, text) if file.suffix.lower() == ".csv" else _plain_rows(file, text)
    if not rows:
        raise ValueError(f"{file} lists no image; write a path and a label on each line.")
    return rows


def read_text(file: Path) -> str:
    """A UTF-8 text file; anything else in it is an error that names the line."""
    if not file.is_file():
        raise FileNotFoundError(f"No list {file}; give the file that lists the images.")
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{file}, line {line} is not UTF-8; save the file in that encoding.") from error


def class_labels(file: Path, rows: Sequence[Row], known: Sequence[str] | None) -> tuple[list[int], tuple[str, ...]]:
    """Labels as class numbers.

    Args:
        file: The list, for messages.
        rows: Its rows.
        known: The classes in label order, where they are known; otherwise numbers name themselves, from 0, and class
            names are taken in alphabetical order.

    Returns:
        Class of each row, and the class names.

    Raises:
        ValueError: If a label is neither a number nor, in a CSV file, a class name; is mixed with the other kind; or
            is out of range or unknown.
    """
    numbers = [row.label.isascii() and row.label.isdecimal() and len(row.label) < 10 for row in rows]
    if file.suffix.lower() != ".csv" or any(numbers):
        for row, number in zip(rows, numbers, strict=True):
            if not number:
                raise ValueError(
                    f"{file}, line {row.line} has the label {row.label!r}; write a class number from 0, or class names "
                    "on every line of a CSV file."
                )
        labels = [int(row.label) for row in rows]
        names = tuple(known) if known is not None else tuple(map(str, range(min(max(labels), len(rows)) + 1)))
        if max(labels) >= len(names):
            row = next(row for row, label in zip(rows, labels, strict=True) if label >= len(names))
            raise ValueError(f"{file}, line {row.line} has the label {row.label}; {_range(len(names), known)}.")
        return labels, names
    names = tuple(known) if known is not None else tuple(sorted({row.label for row in rows}))
    place = {name: c for c, name in enumerate(names)}
    for row in rows:
        if row.label not in place:
            raise ValueError(f"{file}, line {row.line} has the class {row.label!r}, which is none of the known ones.")
    return [place[row.label] for row in rows], names


def _range(classes: int, known: Sequence[str] | None) -> str:
    if known is not None:
        return f"there are {classes} classes, numbered from 0"
    return "it lists fewer images than that, so classes are missing: number them from 0 without gaps"


def _plain_rows(file: Path, text: str) -> list[Row]:
    rows = []
    for line, content in enumerate(text.split("\n"), 1):
        words = content.rsplit(None, 1)
        if len(words) == 2:
            rows.append(Row(line, words[0].strip(), words[1]))
        elif words:
            raise ValueError(f"{file}, line {line} is {content.strip()!r}; write a path, a space and a label.")
    return rows


def _csv_rows(file: Path, text: str) -> list[Row]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    rows: list[Row] = []
    columns: tuple[int, int] | None = None
    width = 2
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if columns is None:
                columns, width = _columns(file, reader.line_num, cells)
                if not _is_image(cells[0]):
                    continue
            if len(cells) != width or not all(cells[i] for i in columns):
                raise ValueError(f"{file}, line {reader.line_num} is not {width} cells with a path and a label.")
            rows.append(Row(reader.line_num, cells[columns[0]], cells[columns[1]]))
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num} is not CSV: {error}.") from error
    return rows


def _columns(file: Path, line: int, cells: Sequence[str]) -> tuple[tuple[int, int], int]:
    """Places of path and label, and the number of cells, from the first line: a header, or an image already."""
    if len(cells) == 2 and _is_image(cells[0]):
        return (0, 1), 2
    words = [cell.lower() for cell in cells]
    paths = [i for i, word in enumerate(words) if word in PATH_COLUMNS]
    labels = [i for i, word in enumerate(words) if word in LABEL_COLUMNS]
    if len(paths) == len(labels) == 1:
        return (paths[0], labels[0]), len(cells)
    raise ValueError(
        f"{file}, line {line} is neither an image and its label nor a header; name one column path and one label."
    )


def _is_image(cell: str) -> bool:
    return cell.lower().endswith(IMAGE_SUFFIXES)
