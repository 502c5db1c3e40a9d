"""The class of each object as a person gave it: a table, a second label image, or a folder of masks for each class."""

import csv
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.classed import ClassedLabels
from ..arrays.stack import Stack
from ..errors import DataError
from ..files import read_plain
from ..grid.blocks import blocks
from ..metrics.contingency import Contingency
from ..sources.open import open_labels
from ..sources.pairs import is_image, key_of, list_images, match_paths, place_in_zarr
from .config import MOST_KINDS

TABLES = (".csv", ".tsv", ".txt")
ID, CLASS, IMAGE = ("id", "label", "index"), ("class",), ("image", "name", "file")  # columns, as programs name them
SLOP = 0.1  # of an object's voxels with a class: what masks overlap by at edges
NAMED = 5  # ids in a message
FEWEST = 2  # classes: of one there is nothing to tell apart
MOST_OF_TABLE = 2**26  # 64 MiB: some million objects
Given = Mapping[int, str | int]


def with_classes(labels: Sequence[Stack], classes: Any, names: Sequence[str] = ()) -> list[Stack]:
    """Give objects their classes, for a training that learns both.

    Parameters
    ----------
    labels : sequence of Stack
        Ids of objects.
    classes : path, or a sequence with one for each of `labels`
        A table with the columns ``id`` and ``class``, and ``image`` where there are several images; a label image whose
        value in an object is its class; or a folder of tables or of label images by the names of `labels`, or of a
        folder for each class, with masks. In a sequence also a Stack, an array, or a mapping of id to class. An object
        that is not there, or has class 0, is learnt as an object only.
    names : sequence of str, optional
        Of numbered classes, in the order of their numbers.

    Returns
    -------
    list of Stack
        To be learnt from with the task instances.

    Raises
    ------
    DataError
        For a class of an id that no object has, two classes in one object, less than two classes in all, a table
        without the columns, files that do not pair.
    """
    found = classes_of(labels, classes, names)
    called = tuple(names) or _ordered({name for given in found for name in given.values()})
    if not FEWEST <= len(called) <= MOST_KINDS:
        raise DataError(
            f"objects have {len(called)} class{'es' * (len(called) != 1)} ({', '.join(called[:NAMED]) or 'none'}); "
            f"give {FEWEST} to {MOST_KINDS}, or learn objects without classes"
        )
    number = {name: at + 1 for at, name in enumerate(called)}
    done = []
    for each, given in zip(labels, found, strict=True):
        rows = sorted(given.items()) or [(0, called[0])]
        ids, kinds = (np.array(column, np.uint64) for column in zip(*((i, number[n]) for i, n in rows), strict=True))
        done.append(dataclasses.replace(each, data=ClassedLabels(each.data, ids, kinds), object_classes=called))
    return done


def classes_of(labels: Sequence[Stack], classes: Any, names: Sequence[str] = ()) -> list[dict[int, str]]:
    """Return the name of the class of each object, by its id, as `with_classes` takes them; those without are left out.

    Raises
    ------
    DataError
        As `with_classes`, but for the number of classes.
    """
    sides = _sides(labels, classes) if isinstance(classes, str | Path) else [[("", each)] for each in classes]
    if len(sides) != len(labels):
        raise DataError(f"classes are given for {len(sides)} images, labels for {len(labels)}; give one for each")
    found = [_of_image(each, side) for each, side in zip(labels, sides, strict=True)]
    values = _ordered({str(value) for given in found for value in given.values()})
    numbered = all(value.isdecimal() for value in values)
    called = tuple(names) or tuple(f"class_{value}" if numbered else value for value in values)
    if len(called) != len(values):
        raise DataError(
            f"{len(called)} class names are given for {len(values)} classes ({', '.join(values[:NAMED])}); "
            "give one for each"
        )
    of = dict(zip(values, called, strict=True))
    return [{number: of[str(value)] for number, value in given.items()} for given in found]


def _ordered(values: Iterable[str]) -> tuple[str, ...]:
    """Return names of classes in order, numbers in them as numbers."""
    return tuple(sorted(values, key=lambda value: ([int(n) for n in re.findall(r"[0-9]+", value)], value)))


def _sides(labels: Sequence[Stack], where: str | Path) -> list[list[tuple[str, Any]]]:
    """Return for each of some labels what its classes are read from: a name, and a path or a mapping."""
    path, places = Path(where).expanduser(), [_place(each) for each in labels]
    if not path.exists():
        raise DataError(f"{path} does not exist; give a table, a label image, or a folder of them as object classes")
    if _is_table(path):
        return _tables(path, places)
    if is_image(path):
        return _paired(places, [path])
    inner = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    tables = [p for p in inner if _is_table(p)]
    if tables:
        return _paired(places, tables)
    folders = [p for p in inner if p.is_dir() and not is_image(p)]
    if not folders:
        return _paired(places, list_images(path))
    return _masks(places, folders)


def _place(labels: Stack) -> Path:
    """Return where labels lie; of those inside an image where that lies, by which it is named."""
    path = Path(labels.source or labels.name)
    return path.parent.parent if place_in_zarr(path).startswith("labels/") else path


def _paired(places: Sequence[Path], files: Sequence[Path]) -> list[list[tuple[str, Any]]]:
    of = dict(match_paths(places, [file.with_suffix("") if _is_table(file) else file for file in files]))
    whole = {file.with_suffix("") if _is_table(file) else file: file for file in files}
    return [[("", whole[of[place]])] for place in places]


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLES


def _masks(places: Sequence[Path], folders: Sequence[Path]) -> list[list[tuple[str, Any]]]:
    """Return the masks of each class for each of some labels; an image may have no object of a class."""
    found: list[list[tuple[str, Any]]] = [[] for _ in places]
    for folder in folders:
        masks, known = list_images(folder), {key_of(place): number for number, place in enumerate(places)}
        for mask in masks:
            number = 0 if len(places) == len(masks) == 1 else known.get(key_of(mask))
            if number is None:
                raise DataError(f"{mask} has the name of no labels; rename it, or take it away")
            found[number].append((folder.name, mask))
    return found


def _tables(path: Path, places: Sequence[Path]) -> list[list[tuple[str, Any]]]:
    """Read one table for all images."""
    rows = _rows(path)
    if len(places) == 1 and all(image is None for image, _, _ in rows):
        return [[("", {number: value for _, number, value in rows})]]
    known = {key_of(place): at for at, place in enumerate(places)}
    found: list[dict[int, str]] = [{} for _ in places]
    for image, number, value in rows:
        if image is None:
            raise DataError(
                f"{path} is one table for {len(places)} images and does not say which; add a column image with their "
                "names, or give a folder with a table for each"
            )
        at = known.get(key_of(Path(image)))
        if at is None:
            raise DataError(f"{path} names the image {image!r}, which is not among the labels; correct its name")
        found[at][number] = value
    return [[("", each)] for each in found]


def _rows(path: Path) -> list[tuple[str | None, int, str]]:
    """Read image, id and class from the rows of a table."""
    try:
        text = read_plain(path, MOST_OF_TABLE).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}); save it as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    lines = csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count))
    head = [name.strip().lower() for name in next(lines, [])]
    at = [next((head.index(n) for n in wanted if n in head), None) for wanted in (ID, CLASS, IMAGE)]
    if at[0] is None or at[1] is None:
        raise DataError(
            f"{path} has the columns {', '.join(head) or 'none'}; a table of object classes needs id and class"
        )
    found, seen = list[tuple[str | None, int, str]](), dict[tuple[str | None, int], str]()
    for number, row in enumerate(lines, 2):
        if not any(cell.strip() for cell in row):
            continue
        cells = [row[i].strip() if i is not None and i < len(row) else None for i in at]
        try:
            key = cells[2], int((cells[0] or "").removesuffix(".0"))  # as tables write ids beside an empty one
        except ValueError as error:
            raise DataError(f"{path}, row {number}: the id is {cells[0]!r}; it must be a whole number") from error
        value = cells[1] or ""
        if seen.setdefault(key, value) != value:
            raise DataError(f"{path} gives object {key[1]} the classes {seen[key]} and {value}; keep one of the rows")
        found.append((*key, value))
    return found


def _of_image(labels: Stack, side: Sequence[tuple[str, Any]]) -> dict[int, str | int]:
    """Return the class of each object of an image."""
    _, first = side[0] if side else ("", {})
    if isinstance(first, str | Path) and _is_table(Path(first)):
        first = {number: value for _, number, value in _rows(Path(first))}
    if isinstance(first, Mapping):
        return _listed(labels, first)
    names = [name for name, _ in side]
    stacks = [each if isinstance(each, Stack) else open_labels(each) for _, each in side]
    for each in stacks:
        if each.shape != labels.shape:
            raise DataError(
                f"the classes {each.name} have the shape {each.shape}, the labels {labels.name} {labels.shape}; both "
                "must show the same pixels"
            )
    counts: dict[int, dict[str | int, int]] = {}
    for name, each in zip(names, stacks, strict=True):
        table = Contingency.total(_counted(labels, each))
        for number, value, count in zip(*(c.tolist() for c in (table.truth, table.result, table.count)), strict=True):
            if number and value:
                of = counts.setdefault(number, {})
                of[name or value] = of.get(name or value, 0) + count
    return _decided(labels, counts)


def _counted(labels: Stack, classes: Stack) -> Iterator[Contingency]:
    for box in blocks(labels.shape, labels.chunks):
        yield Contingency.of(labels.read(box), classes.read(box))


def _decided(labels: Stack, counts: Mapping[int, Mapping[str | int, int]]) -> dict[int, str | int]:
    """Return the class of each object by voxels; refuse objects of two."""
    found, torn = dict[int, str | int](), []
    for number, of in counts.items():
        found[number] = max(of, key=lambda value: (of[value], -list(of).index(value)))
        if sum(of.values()) - of[found[number]] > SLOP * sum(of.values()):
            torn.append(number)
    if torn:
        raise DataError(
            f"{len(torn)} of {len(counts)} objects of {labels.name} have two classes or more (id {_listing(torn)}); "
            "paint each with one class, split the object, or give a table with the columns id and class"
        )
    return found


def _listed(labels: Stack, given: Given) -> dict[int, str | int]:
    """Return the classes of a table without those of nothing; refuse ids that no object has."""
    found = {int(number): value for number, value in given.items() if str(value).strip() not in ("", "0")}
    there: set[int] = set()
    for box in blocks(labels.shape, labels.chunks):
        there.update(np.unique(labels.read(box)).tolist())
    strange = sorted(set(found) - (there - {0}))
    if strange:
        raise DataError(
            f"{len(strange)} of {len(found)} classes are of ids that no object of {labels.name} has "
            f"({_listing(strange)}); take them away, or give the labels that the table is of"
        )
    return found


def _listing(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:NAMED])) + (", ..." if len(ids) > NAMED else "")
