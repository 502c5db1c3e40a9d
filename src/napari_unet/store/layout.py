"""Where a result lies on disk: find ours, refuse what is not, make and remove its groups and arrays."""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr

from ..errors import OutputError
from ..faults import persist
from ..files import (
    below,
    make_folder,
    read_plain,
    refuse_link,
    refuse_links,
    refuse_long,
    remove,
    remove_leftovers,
    replace_json,
)
from ..sources.remote import MAX_METADATA
from ..sources.zarrays import open_own
from . import consolidated
from .arrays import NEWEST, Layout, new_array
from .journal import DONE
from .lock import LOCK
from .ome import VERSIONS, Output, versioned
from .plan import FOLDER, FORMER_TABLE, LEVEL, PLAN, TABLE, TABLE_FOLDER, Plan
from .pyramid import Level

HIDDEN = r"\.([^/]+\.)?[0-9a-f]{32}\.partial"  # temporary files of `files.replacing` and of zarr
# What a run that was killed before its plan was written may have left.
BEGINNING = re.compile(rf"lock|done\.jsonl|plan\.json\.tmp|{HIDDEN}")
WORKING = "working"  # in a ledger: what the network gave at other pixels than the result's, until that is made of it
GROUP_FILES = ("zarr.json", ".zattrs", ".zgroup")  # metadata of groups in both versions of zarr


def ledger_of(root: Path, paths: Sequence[str]) -> Path:
    """Return the ledger's folder of a run whose first output is ``paths[0]``."""
    return root / paths[0] / FOLDER


def find(root: Path, paths: Sequence[str], inside: bool) -> tuple[Path, Plan] | None:
    """Find the run that owns the place where `paths` are to be written.

    Returns
    -------
    (ledger's folder, plan); None where nothing is there.

    Raises
    ------
    OutputError
        Where something is there that no run of ours made, or a link.
    """
    refuse_long(root)
    if not os.path.lexists(root):
        return None
    check_links(root, paths)
    if root.exists() and not root.is_dir():
        raise OutputError(f"{root} exists and is a file; choose another place for the result")
    for ledger in [ledger_of(root, paths)] if inside else ledgers(root):
        check_ledger(root, ledger)
        if (ledger / PLAN).exists() and (plan := Plan.load(ledger)).inside == inside:
            check_place(ledger, plan)
            taken = [p for p in paths if inside and p not in plan.outputs and (root / p).exists()]
            _refuse_strangers(root, taken)
            return ledger, plan
    _refuse_strangers(root, paths if inside else [""])
    return None


def ledgers(root: Path) -> list[Path]:
    """List the ledger's folders in a result, or in a group that results were added to."""
    found = [root / FOLDER, *root.glob(f"*/{FOLDER}"), *root.glob(f"labels/*/{FOLDER}")]
    return sorted(path for path in found if path.is_dir())


def check_ledger(root: Path, ledger: Path) -> None:
    """Refuse a ledger whose files, or folders below the result, are links.

    Raises
    ------
    UnsafeError
    """
    for folder in (ledger, *ledger.parents):
        if folder == root:
            break
        refuse_link(folder)
    for item in ledger.iterdir() if ledger.is_dir() else ():
        refuse_link(item)


def check_place(ledger: Path, plan: Plan) -> Path:
    """Return the result's root, by where its ledger lies; refuse a ledger that lies elsewhere than it was made.

    Raises
    ------
    OutputError
    """
    parts = Path(next(iter(plan.outputs))).parts
    if ledger.absolute().parent.parts[-len(parts) :] != parts and parts:
        raise OutputError(
            f"{ledger.parent} was made as {'/'.join(parts)} of its result, and has another name now; give it that name"
        )
    return (ledger if len(ledger.parents) > len(parts) else ledger.absolute()).parents[len(parts)]


def _refuse_strangers(root: Path, paths: Sequence[str]) -> None:
    """Refuse to write where there is more than empty folders and a ledger that never began."""
    for path in paths:
        for item in below(root / path):
            if not item.is_dir(follow_symlinks=False) and not _never_began(Path(item.path)):
                raise OutputError(
                    f"{root / path} exists and was not made by this program (it holds {item.name}); "
                    "it is left as it is: choose another place or name for the result"
                )


def _never_began(file: Path) -> bool:
    """Say whether a file is all that is left of a run that ended before it had a plan."""
    ours = BEGINNING.fullmatch(file.name) is not None
    return ours and file.parent.name == FOLDER and not (file.parent / PLAN).exists()


def check_links(root: Path, paths: Sequence[str]) -> None:
    """Refuse to write through a symbolic link.

    Raises
    ------
    OutputError
        Naming the link.
    """
    places = {root} | {root.joinpath(*Path(p).parts[: i + 1]) for p in paths for i in range(len(Path(p).parts))}
    for place in sorted(places | {root / p / FOLDER for p in paths}):
        if place.is_symlink():
            raise OutputError(
                f"{place} is a symbolic link; results are not written through links: name the folder itself"
            )


def own_file(plan: Plan) -> re.Pattern[str]:
    """Return the pattern of the paths of all files that a run with this plan makes."""
    partial = r"(\.[0-9a-f]{32}\.partial)?"  # zarr's
    group = rf"(zarr\.json|\.zattrs|\.zgroup|zarr(?=\.[0-9a-f]{{32}}\.partial)){partial}"
    table = rf"({re.escape(TABLE)}|{re.escape(FORMER_TABLE)})(\.partial)?|{TABLE_FOLDER}/(zarr\.json|\.zarray)"
    allowed = [] if plan.inside else [rf"(labels/)?{group}"]
    for path, output in plan.outputs.items():
        prefix = re.escape(f"{path}/") if path else ""
        more = len(output.get("shape", ())) - 1
        array = rf"\d{{1,2}}/({group}|\.zarray{partial}|(c/)?\d+(/\d+){{{max(more, 0)}}}{partial})"
        allowed.append(rf"{prefix}({group}|{array}|{table}|{HIDDEN})")
    primary = next(iter(plan.outputs))
    ledger = re.escape(f"{primary}/{FOLDER}/" if primary else f"{FOLDER}/")
    scratch = rf"objects(\.trash)?/(labels\.zarr/.*|[^/]+\.(arrays|npz|tmp|partial)|job\.json)|{WORKING}(\.trash)?/.*"
    marks = r"plan\.json|done\.jsonl|lock|unread|zarr\.json|\.zarray"
    allowed.append(rf"{ledger}({scratch}|{marks}|[a-z.]+\.tmp|{HIDDEN})")
    return re.compile("|".join(allowed))


def own_files(root: Path, plan: Plan) -> Iterator[Path]:
    """Yield the files of a run, and refuse all that lies beside them.

    Raises
    ------
    OutputError
        Naming a file that the run did not make, or a link.
    """
    pattern = own_file(plan)
    for place in [root / path for path in plan.outputs] if plan.inside else [root]:
        for item in below(place):
            name = Path(item.path).relative_to(root).as_posix()
            if item.is_symlink() or (not item.is_dir(follow_symlinks=False) and pattern.fullmatch(name) is None):
                raise OutputError(
                    f"{root} holds {name}, which this program did not make; move it away before overwriting the result"
                )
            if not item.is_dir(follow_symlinks=False):
                yield Path(item.path)


def clear(root: Path, ledger: Path, plan: Plan) -> None:
    """Remove all that a run made, and nothing else; a removal that was stopped can be done again.

    Raises
    ------
    OutputError
        Where a file is there that the run did not make; then nothing is removed.
    """
    for _ in own_files(root, plan):  # all of them are checked before the first is removed
        pass
    remove(ledger / DONE)
    if plan.inside:
        list_labels(root, plan.version, remove=plan.outputs, via=ledger)
    groups = [*plan.outputs, *([] if plan.inside else ["", "labels"])]
    for file in sorted({root / path / name for path in groups for name in GROUP_FILES}):
        remove(file)
    for file in own_files(root, plan):
        if file not in (ledger / PLAN, ledger / LOCK):
            remove(file)
    scratch = [ledger / f"{name}{end}" for name in ("objects", WORKING) for end in ("", ".trash")]
    for folder in [*level_folders(root, plan.outputs), *_table_folders(root, plan.outputs), *scratch]:
        _remove_empty(folder)
    if plan.inside:
        consolidated.renew(root, list(plan.outputs), VERSIONS[plan.version], ledger)
    remove(ledger / PLAN)


def _remove_empty(folder: Path) -> None:
    """Remove a folder and those in it, which hold no files any more."""
    found = [Path(item.path) for item in below(folder)]
    for inner in sorted([*found, folder], key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(FileNotFoundError):
            inner.rmdir()


def prune(root: Path, plan: Plan) -> None:
    """Remove the empty folders that clearing a run left, but not `root`."""
    paths = [Path(path, *rest) for path in plan.outputs for rest in ([FOLDER], [])] + [Path("labels")]
    for path in paths:
        if path != Path() and (root / path).is_dir() and not any((root / path).iterdir()):
            (root / path).rmdir()


def level_folders(root: Path, paths: Iterable[str]) -> list[Path]:
    """List the folders of all levels of all outputs."""
    return [
        f
        for path in paths
        for f in (root / path).glob("*")
        if LEVEL.fullmatch(f.name) and (f.is_dir() or f.is_symlink())
    ]


def _table_folders(root: Path, paths: Iterable[str]) -> list[Path]:
    return [root / path / TABLE_FOLDER for path in paths if path.startswith("labels/")]


def tidy(root: Path, paths: Sequence[str]) -> None:
    """Remove the temporary files that a killed run left, and refuse links among what a run writes.

    Raises
    ------
    UnsafeError
        Naming the link.
    """
    places = [ledger_of(root, paths), *level_folders(root, paths), *_table_folders(root, paths)]
    for place in places:
        refuse_links(place)
    remove_leftovers(places)


def write_group(folder: Path, version: str, attributes: Mapping[str, Any], via: Path, at_once: bool = True) -> None:
    """Make a group, or give one of ours other attributes, in one step; `at_once` as for `replacing`."""
    make_folder(folder)
    if VERSIONS[version] == NEWEST:
        group = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
        replace_json(folder / "zarr.json", group, via, at_once)
        return
    if not (folder / ".zgroup").exists():
        replace_json(folder / ".zgroup", {"zarr_format": 2}, via, at_once)
    replace_json(folder / ".zattrs", attributes, via, at_once)


def read_group(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Read a group: (zarr format, attributes); None where there is none.

    Raises
    ------
    OutputError
        Where its metadata is damaged.
    """
    for name, zarr_format in (("zarr.json", NEWEST), (".zgroup", 2)):
        if not (folder / name).is_file():
            continue
        try:
            values = _read_json(folder / name)
            if zarr_format == NEWEST:
                return NEWEST, dict(values.get("attributes", {}))
            attributes = folder / ".zattrs"
            return 2, dict(_read_json(attributes)) if attributes.exists() else {}
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise OutputError(
                f"the metadata of {folder} is damaged ({error}); repair it before writing there"
            ) from error
    return None


def _read_json(path: Path) -> Any:
    return json.loads(read_plain(path, MAX_METADATA))


def version_inside(root: Path) -> str:
    """Return the version of the OME-Zarr image that labels are to be added to.

    Raises
    ------
    OutputError
        Where it is none, or of another version than 0.4 and 0.5.
    """
    found = read_group(root) if root.is_dir() else None
    attributes = found[1] if found else {}
    for version, ome in (("0.5", attributes.get("ome")), ("0.4", attributes)):
        if isinstance(ome, dict) and ome.get("multiscales"):
            said = ome["multiscales"][0].get("version", version) if version == "0.4" else ome.get("version")
            if said == version and found and found[0] == VERSIONS[version]:
                return version
            raise OutputError(
                f"{root} is OME-Zarr {said}; labels can be added to 0.4 and 0.5: write a new result instead"
            )
    raise OutputError(f"{root} is not an OME-Zarr image, so no labels can be added to it; write a new result instead")


def list_labels(
    root: Path, version: str, *, via: Path, add: Sequence[str] = (), remove: Sequence[str] | Mapping[str, Any] = ()
) -> None:
    """Add and remove names (``labels/NAME``) in the listing of the labels group; all else in it stays."""
    folder = root / "labels"
    found = read_group(folder)
    if found is None:
        if not add:
            return
        make_folder(folder)
    attributes = found[1] if found else versioned({"labels": []}, version)
    holder = attributes.setdefault("ome", {"version": version}) if version == "0.5" else attributes
    listed = list(holder.get("labels", []))
    names = [path.removeprefix("labels/") for path in add]
    gone = {path.removeprefix("labels/") for path in remove}
    wanted = [n for n in listed if n not in gone] + [n for n in names if n not in listed]
    if wanted == listed and found is not None and ("labels" in holder or not add):
        return
    holder["labels"] = wanted
    if version == "0.5" and found is not None:
        values = _read_json(folder / "zarr.json")
        replace_json(folder / "zarr.json", {**values, "attributes": attributes}, via)
    else:
        write_group(folder, version, attributes, via)


def make_array(folder: Path, output: Output, level: Level, version: str) -> "zarr.Array[Any]":
    """Make one level's array, or open it where it is there already.

    Raises
    ------
    OutputError
        Where it is there and is not what the plan says.
    """
    zarr_format = VERSIONS[version]
    folder = folder.absolute()  # workers, which write to it too, have folders of their own
    if (folder / ("zarr.json" if zarr_format == NEWEST else ".zarray")).exists():
        array = persist(lambda: open_own(folder, "r+"))
        if array.shape != level.shape or array.dtype != output.dtype:
            raise OutputError(
                f"{folder} is {array.shape} {array.dtype}, planned is {level.shape} {output.dtype}; "
                "start again with --overwrite"
            )
    else:
        chunks = output.chunks
        if output.shards is None:
            chunks = tuple(min(c, n) for c, n in zip(chunks, level.shape, strict=True))
        planned = Layout(level.shape, chunks, output.shards, output.dtype, output.axes, zarr_format)
        array = new_array(folder, planned)
    # Empty, and written after the array: a kill between the two would show in the bytes.
    remove(folder / ".zattrs")
    return array
