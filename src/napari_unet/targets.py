"""Which images a batch runs, and where the result of each goes."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from .errors import DataError, UsageError
from .inference import PredictConfig
from .sources import list_images
from .sources.omezarr import OURS, images_inside, ome
from .sources.open import reached
from .sources.pairs import is_image, place_in_zarr, stem
from .sources.zarrmeta import below, is_remote, read_node
from .store.editable import EDITED
from .store.journal import FOLDER
from .store.plates import is_plate, write_twin
from .store.tiff import SUFFIXES, holds_labels
from .summary import Row, printable


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One image of a batch: its name in messages, where it lies, and where its result goes in the folder of results."""

    name: str
    source: Path | str
    result: str
    place: str = ""  # in a plate: A/1/0

    @property
    def row(self) -> Row:
        """What is known of it before it is tried."""
        well, _, field = self.place.rpartition("/")
        return Row(self.name, "waiting", 0.0, well=well.replace("/", ""), field=field)


def find_targets(folder: Path | str, out: Path, config: PredictConfig, pattern: str | None) -> tuple[list[Target], str]:
    """Say which images there are, and where the result of each goes; and what was left out, in words.

    Results of models among images are none; where there are only images that models made, these are run.

    Raises
    ------
    UsageError
        Where results would come to lie among the images.
    DataError
        Where there is no image, or two would have the same result.
    """
    if is_remote(str(folder)):
        return _at_address(str(folder), pattern), ""
    folder = Path(folder).expanduser()
    images = list_images(folder, pattern)
    base = folder.parent if is_image(folder) else folder
    target = out.resolve()
    if target in (base.resolve(), folder.resolve()) and not config.in_source:
        raise UsageError(f"{out}: the results would lie among the images; give another folder for them")
    if base.resolve() in target.parents:
        images = [path for path in images if target not in path.resolve().parents]
    if not images:
        raise DataError(f"{folder} holds no image but the results in {out}; give the folder of the images")
    images, results = _without_results(images)
    files: dict[str, Target] = {}
    in_plate = functools.cache(is_plate)
    for path in images:
        name = path.relative_to(base)
        inside = place_in_zarr(name)
        result = _result_of(name, inside)
        place = inside if inside and in_plate(str(path)[: -len(inside) - 1]) else ""
        file = files.setdefault(result.lower(), Target(printable(name.as_posix()), path, result, place))
        if file.source != path:
            raise DataError(
                f"{file.name} and {printable(str(name))} would have the same result, {printable(result)}; "
                "rename one, or choose with --pattern"
            )
    said = f"{len(results)} results were left out, such as {results[0].name}" if results else ""
    return list(files.values()), printable(said)


def _result_of(name: Path, inside: str) -> str:
    """Return where the result of an image lies in the folder of the results; of one in a plate, in its twin."""
    top = Path(*name.parts[: len(name.parts) - inside.count("/") - 1]) if inside else name
    return (top.parent / f"{stem(top)}.ome.zarr" / inside).as_posix()


def _at_address(address: str, pattern: str | None) -> list[Target]:
    """List the image, or the images of a plate, at an address.

    Raises
    ------
    DataError
        Where there is none.
    """
    node = reached(lambda: read_node(address))
    if node is None:
        raise DataError(
            f"{address}: there is no zarr group; batches of other files are read from disks, copy them here"
        )
    top = Path(address.rstrip("/").rpartition("/")[2])
    images = [] if node.is_array or "multiscales" in ome(node) else images_inside(node)
    names = [name for name in images if pattern is None or PurePosixPath(f"/{name}").match(pattern)] or [""]
    plate = "plate" in ome(node)
    return [
        Target(
            f"{top}/{name}".rstrip("/"),
            below(address, name) if name else address,
            _result_of(top / name, name),
            name if plate else "",
        )
        for name in names
    ]


def write_twins(files: Sequence[Target], out: Path, config: PredictConfig) -> None:
    """Make the groups of plates around the results of their fields, where these do not lie in the plates themselves.

    Raises
    ------
    OutputError
        Where something else lies there.
    """
    if config.in_source:
        return
    twins = {
        file.result[: -len(file.place) - 1]: str(file.source)[: -len(file.place) - 1] for file in files if file.place
    }
    for name, where in twins.items():
        write_twin(where, out / name, config.ome_version, out / FOLDER)


def _without_results(images: list[Path]) -> tuple[list[Path], list[Path]]:
    """Part images from results of models; where there are only results, those that are images are run."""
    kinds = {path: _result_kind(path) for path in images}
    wanted = [path for path in images if not kinds[path]] or [path for path in images if kinds[path] == "image"]
    if not wanted:
        raise DataError(
            f"{images[0].parent} holds no image but labels that this program made, such as {images[0].name}; choose "
            "the folder of the images"
        )
    return wanted, [path for path in images if path not in wanted]


def _result_kind(path: Path) -> str:
    """Say what this program made, as what it keeps of its making tells: "labels", "image", or nothing.

    An image is what a model gave, or a copy of one with its labels beside it.
    """
    if path.is_file():
        return "labels" if path.suffix.lower() in SUFFIXES and holds_labels(path) else ""
    try:
        node = read_node(str(path))
    except DataError:
        return ""
    ours = node.attributes.get(OURS) if node is not None else None
    made = ours.get("provenance") if isinstance(ours, dict) else None
    if not isinstance(made, dict) or not isinstance(ours, dict):
        return ""
    labels = EDITED in made or str(ours.get("result", "")).startswith("labels/")
    if labels and node is not None and "multiscales" in ome(node):  # the image was copied beside them
        return "image"
    return "labels" if labels else "image" if "model" in made else ""
