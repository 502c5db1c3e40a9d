"""Which label image belongs to which image: by name."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DataError, UnsafeError, UsageError
from .formats.table import FORMATS, ZIPPED, ending_of
from .omezarr import OURS, images_inside, ome
from .open import PICTURE_ENDINGS, TIFF_ENDINGS
from .zarrmeta import is_place, is_remote, read_node

ENDINGS = TIFF_ENDINGS + PICTURE_ENDINGS
# What people and public data sets put around names to tell images from labels.
WORDS = (
    "labels?|lbls?|masks?|cp_masks|segmentation|seg|gt|ground_?truth|truth|annotations?|target|nuclei_label|images?|imgs?|raw|"
    "man_seg|man_track"
)
BEFORE = re.compile(rf"^(?:{WORDS})[_\-. ]*(?=[\w])", re.IGNORECASE)
AFTER = re.compile(rf"[_\-. ](?:{WORDS})$", re.IGNORECASE)
SHOWN = 5  # names in a message
LISTED = 20  # pairs that are listed: about a screen
NUMBER = re.compile(r"[0-9]+")


def is_image(path: Path) -> bool:
    """Say whether `path` is something that opens as one image: a file by its ending, or a zarr group or array."""
    if path.is_dir():
        return path.suffix == ".zarr" or any((path / n).is_file() for n in ("zarr.json", ".zgroup", ".zarray"))
    known = ending_of(path) in (*ENDINGS, *FORMATS) or path.name.lower().endswith(ZIPPED)
    return known and path.is_file()


def list_images(folder: str | Path, pattern: str | None = None) -> list[Path]:
    """List the images of a folder, in natural order (2 before 10).

    TIFF, PNG, JPEG and OME-Zarr; files of other formats where there are none of these, as features and tables, too, lie
    in such files beside images. Of a plate, and of a zarr group of several images, each of its images.

    Parameters
    ----------
    folder : path
        An image itself is a list of one; a zarr group counts as one image.
    pattern : str, optional
        Take only what this matches, as in ``*_raw.tif`` or ``*/images/*.png``; of a plate, ``B/*`` or ``*/0``.

    Raises
    ------
    DataError
        Where there is no such folder, or no image in it.
    UsageError
        For an address.
    """
    if is_remote(str(folder)):
        raise UsageError(
            f"{folder} is an address; several images, and those to learn from, are read from disks: copy it"
        )
    folder = Path(folder).expanduser()
    if is_image(folder):
        return [image for image in _inside(folder) if image == folder or _matches(image, pattern)]
    if not folder.is_dir():
        what = "is neither a folder nor an image that is read" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}; give the folder of the images")
    entries = folder.glob(pattern) if pattern else folder.iterdir()
    found = [p for p in entries if not p.name.startswith(".") and not _inside_zarr(p, folder) and is_image(p)]
    if not found:
        matching = f" that matches {pattern!r}" if pattern else ""
        raise DataError(
            f"{folder} holds no image{matching} (TIFF, PNG, JPEG, OME-Zarr or another that is read); "
            "give another folder"
        )
    first = [path for path in found if ending_of(path) not in FORMATS]
    return [image for path in sorted(first or found, key=_natural) for image in _inside(path)]


def _inside(path: Path) -> list[Path]:
    """List the images of a plate, or of a series in zarr; what is one image itself, or a result of ours, is that."""
    try:
        node = read_node(str(path)) if is_place(str(path)) else None
        if node is None or node.is_array or OURS in node.attributes or "multiscales" in ome(node):
            return [path]
        images = images_inside(node)
    except (DataError, UnsafeError):  # is said by who opens it
        return [path]
    return [path / name for name in images] if len(images) > 1 else [path]


def _matches(image: Path, pattern: str | None) -> bool:
    """Say whether a pattern takes an image of a plate: ``B/*`` those of a row, ``*/0`` the first field of each well."""
    return pattern is None or PurePosixPath(f"/{place_in_zarr(image)}").match(pattern)


def place_in_zarr(path: Path) -> str:
    """Return the place of an image inside a plate, or another group of images: ``A/1/0``; nothing of another."""
    parts = path.parts
    at = next((i for i, part in enumerate(parts[:-1]) if part.lower().endswith((".zarr", *ZIPPED))), len(parts))
    return "/".join(parts[at + 1 :])


def short_name(image: Any) -> str:
    """Return what tells a path, or a layer, from others to who reads it; of one in a plate ``screen.zarr/A/1/0``."""
    inside = place_in_zarr(image) if isinstance(image, Path) else ""
    return "/".join(image.parts[-inside.count("/") - 2 :]) if inside else str(image.name)


def _inside_zarr(path: Path, folder: Path) -> bool:
    parents = path.relative_to(folder).parents
    return any(is_image(folder / p) for p in parents if p != Path())


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.split(r"(\d+)", path.as_posix())
    return [(1, int(p), "") if p.isdecimal() else (0, 0, p.lower()) for p in parts], path.as_posix()


def stem(path: Path) -> str:
    """Return the name without its endings: ``a`` of ``a.ome.zarr`` and ``a.ome.tif``; of a plate's image its place."""
    if inside := place_in_zarr(path):
        return inside
    name = path.name
    for ending in (*ZIPPED, *ENDINGS, *FORMATS, ".zarr"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    return name[: -len(".ome")] if name.lower().endswith(".ome") else name


def pair_paths(images: Sequence[str | Path], labels: Sequence[str | Path]) -> list[tuple[Path, Path]]:
    """Pair images with their labels by name.

    Names are equal, or equal but for words such as ``_mask`` and ``label_``, or but for what all images, and all
    labels, have in common; numbers are compared as numbers (``t_9`` and ``t_009``). Folders that repeat names are
    paired one by one, and one image with one label image as they are given. Nothing else is paired by its place.

    Parameters
    ----------
    images, labels : sequences of paths
        Files, zarr groups, or folders of them.

    Raises
    ------
    DataError
        Naming images without labels and labels without an image, or what is given twice.
    """
    left, right = _expand(images), _expand(labels)
    _check_once(left)
    several = len(images) == len(labels) > 1 and len(set(_names(left))) < len(left)
    if several and not all(is_image(Path(path).expanduser()) for path in (*images, *labels)):
        return [pair for one, other in zip(images, labels, strict=True) for pair in pair_paths([one], [other])]
    pairs = match_paths(left, right)
    for image, label in pairs:
        if image == label and not image.is_dir():
            raise DataError(f"{image} is given both as image and as labels; give the file with its labels")
    return pairs


def paired_lines(pairs: Sequence[tuple[Any, Any]]) -> list[str]:
    """Return which image goes with which labels by their names, one per line; of many the first."""
    lines = [f"{short_name(image)} with {short_name(label)}" for image, label in pairs[:LISTED] if image != label]
    return lines + ([f"and {len(pairs) - LISTED} more pairs"] if len(pairs) > LISTED else [])


def _expand(paths: Sequence[str | Path]) -> list[Path]:
    found = [image for path in paths for image in list_images(path)]
    if not found:
        raise DataError("no image is given; give files, zarr groups or folders")
    return found


def _check_once(paths: Sequence[Path]) -> None:
    """Refuse an image that is given twice, under whatever name."""
    seen: dict[Path, Path] = {}
    for path in paths:
        first = seen.setdefault(path.resolve(), path)
        if first is not path:
            name = f"{path}, which is {first}," if path != first else str(path)
            raise DataError(f"{name} is given twice among the images; give each once")


def key_of(path: Path) -> str:
    """Return a name without words that tell images from labels, and with its numbers as numbers."""
    return _alike_without_words([path])[0]


def match_paths(left: Sequence[Path], right: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pair files by name, as `pair_paths` does with the images of folders."""
    if len(left) == len(right) == 1:
        return [(left[0], right[0])]
    best: tuple[int, list[Path], list[Path]] = (-1, [], [])
    for rule in (
        _names,
        _alike,
        _without_words,
        _alike_without_words,
        _without_common,
        _alike_without_common,
        _numbers,
    ):
        one, other = rule(left), rule(right)
        if len(set(one)) < len(one) or len(set(other)) < len(other):
            continue
        if set(one) == set(other):
            where = dict(zip(other, right, strict=True))
            return [(path, where[key]) for key, path in zip(one, left, strict=True)]
        common = set(one) & set(other)
        alone = [p for k, p in zip(one, left, strict=True) if k not in common]
        unused = [p for k, p in zip(other, right, strict=True) if k not in common]
        best = max(best, (len(common), alone, unused), key=lambda found: found[0])
    raise DataError(_unpaired(best, left, right))


def _unpaired(best: tuple[int, list[Path], list[Path]], left: Sequence[Path], right: Sequence[Path]) -> str:
    count, alone, unused = best
    if count < 0:
        return f"{len(left)} images and {len(right)} labels have names that occur twice; give each a name of its own"
    parts = [f"no labels for {_list(alone)}"] if alone else []
    parts += [f"no image for {_list(unused)}"] if unused else []
    remedy = "add what is missing or take the others away"
    if not count:
        remedy = "rename them so that each has the name, or the number, of its labels, as cell_1.tif and mask_001.tif"
    return f"images and labels do not pair by name: {', '.join(parts)}; {remedy}"


def _list(paths: Sequence[Path]) -> str:
    names = [str(p) for p in paths[:SHOWN]]
    return ", ".join(names) + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")


def _names(paths: Sequence[Path]) -> list[str]:
    return [stem(p) for p in paths]


def _alike(paths: Sequence[Path]) -> list[str]:
    return _loosely(_names(paths))


def _loosely(names: Sequence[str]) -> list[str]:
    """Return names with their numbers as numbers, and in small letters."""
    return [NUMBER.sub(lambda found: str(int(found[0])), name).lower() for name in names]


def _without_words(paths: Sequence[Path]) -> list[str]:
    return [_stripped(stem(p)) for p in paths]


def _alike_without_words(paths: Sequence[Path]) -> list[str]:
    return _loosely(_without_words(paths))


def _stripped(name: str) -> str:
    previous = ""
    while name != previous:
        previous = name
        name = BEFORE.sub("", AFTER.sub("", name)) or name
    return name


def _without_common(paths: Sequence[Path]) -> list[str]:
    """Take away how all names begin and end; never a part of a number."""
    names = _without_words(paths)
    if len(names) < 2:
        return names
    rest = [name[_common(names) :] for name in names]
    after = _common([name[::-1] for name in rest])
    return [name[: len(name) - after] for name in rest]


def _common(names: Sequence[str]) -> int:
    """Return how many characters all names begin with, without the digits at their end."""
    columns = zip(*names, strict=False)
    same = "".join(column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    return len(same.rstrip("0123456789"))


def _alike_without_common(paths: Sequence[Path]) -> list[str]:
    return _loosely(_without_common(paths))


def _numbers(paths: Sequence[Path]) -> list[str]:
    """Return the numbers that differ, where names are the same but for numbers; else names that pair with nothing."""
    names = _without_words(paths)
    if len({NUMBER.sub("#", name).lower() for name in names}) > 1:
        return [f"/{path}" for path in paths]
    columns = list(zip(*([int(n) for n in NUMBER.findall(name)] for name in names), strict=True))
    differing = [column for column in columns if len(set(column)) > 1]
    return [" ".join(str(column[row]) for column in differing) for row in range(len(names))]


# From the strictest to the loosest: the first by which all names agree decides.
RULES = (_names, _alike, _without_words, _alike_without_words, _without_common, _alike_without_common, _numbers)
