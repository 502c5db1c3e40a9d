"""Commands that look at what is there: scores, checks, descriptions, and an example."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import with_opening
from .output import say, tell, tell_lines, tell_rows, tell_table
from .scores import check_scores, save_scores
from .shell import FAILED, BreakLock, command, shown


@command
@with_opening("axes", "series", "allow_incomplete")
def evaluate(
    result: Annotated[str, typer.Argument(help="Result to score: a file, a store, or a folder.", show_default=False)],
    truth: Annotated[str, typer.Argument(help="Ground truth.", show_default=False)],
    kind: Annotated[str | None, typer.Option(help="semantic, instances or intensity; decided from the data.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write the scores to this file too.")] = None,
    layers: Annotated[Path | None, typer.Option(help="OME-Zarr for hits, misses and false objects.")] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG of result, truth and difference, for images.")] = None,
    before: Annotated[
        str | None, typer.Option(metavar="PATH", help="For the picture: the image that the result was made from.")
    ] = None,
    object_classes: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Class of each true object: a table (id, class), a label image, or a folder."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier layers of this command.")] = False,
    break_lock: BreakLock = False,
    opening: Any = None,
) -> None:
    """Score a result against the truth.

    [dim]napari-unet evaluate nuclei.ome.zarr truth.tif --kind semantic --json scores.json[/dim]
    """
    from ..evaluation.evaluate import evaluate as run

    _check_evaluate((result, truth), out, picture, layers)
    found = run(result, truth, kind, object_classes=object_classes, **opening)
    for note in found.notes:
        tell(note)
    tell_lines(found.table())
    if out is not None:
        save_scores(out, found.to_json())
    if picture is not None:
        from ..evaluation.figures import save_comparison

        save_comparison(picture, result, truth, before, **opening)
    if layers is not None:
        from ..evaluation.compare import compare

        for time, objects in enumerate(
            shown(compare(result, truth, layers, overwrite=overwrite, break_lock=break_lock, **opening))
        ):
            _tell_objects(f"time {time}: " if time else "", objects)


def _check_evaluate(sides: tuple[str, str], out: Path | None, picture: Path | None, layers: Path | None) -> None:
    """Refuse places that cannot be written to, before anything is scored."""
    from ..errors import UsageError
    from ..evaluation.figures import check_picture
    from ..sources.pairs import is_image
    from ..store.admission import check_folder

    if layers is not None and any(Path(side).is_dir() and not is_image(Path(side)) for side in sides):
        raise UsageError("--layers are of one result and its truth; name two images, not folders of them")
    if layers is not None:
        check_folder(layers)
    if out is not None:
        check_scores(out)
    if picture is not None:
        check_picture(picture)


def _tell_objects(when: str, objects: Any) -> None:
    for name in ("misses", "false", "split", "merged"):
        ids = getattr(objects, name)
        listed = ", ".join(map(str, ids[:20])) + (", ..." if len(ids) > 20 else "")
        tell(f"{when}{name}: {listed or 'none'}")


@command
def annotate(
    result: Annotated[Path, typer.Argument(help="A result of predict --uncertainty.", show_default=False)],
    count: Annotated[int, typer.Option(help="Number of patches.", min=1)] = 10,
    patch: Annotated[int | None, typer.Option(help="Edge of a patch in pixels; 128, in 3-D 32, if not given.")] = None,
) -> None:
    """List the patches to annotate next: those with the highest predictive entropy."""
    from ..inference.diagnostics import annotate_next

    places = annotate_next(result, count, patch)
    rows = ((" ".join(f"{c:.0f}" for c in centre), f"{mean:.3f}") for centre, mean in places)
    tell_table(("centre, in pixels", "uncertainty"), rows)


@command
def export(
    result: Annotated[str, typer.Argument(help="A result, any labels, or a model.", show_default=False)],
    to: Annotated[
        Path,
        typer.Option(
            "--to",
            help="File: .tif, .zip or .roi (ImageJ), .geojson (QuPath), .csv, .parquet; of a model .zip or .onnx.",
            show_default=False,
        ),
    ],
    image: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Measure the intensities of this image; the result's own if not given. Of a model: test it with this.",
        ),
    ] = None,
    tracks: Annotated[
        bool, typer.Option("--tracks", help="Tables: centres of linked objects, for Tracks in napari.")
    ] = False,
    trackastra: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="With --tracks: link by trackastra, its model's folder or name."),
    ] = None,
    author: Annotated[list[str] | None, typer.Option(help="Of a model: who made it; several.", metavar="NAME")] = None,
    licence: Annotated[str | None, typer.Option(help="Of a model: its licence, such as CC-BY-4.0.")] = None,
    cite: Annotated[list[str] | None, typer.Option(help="Of a model: what to cite; several.", metavar="TEXT")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write the objects of a result, or a model, for another program.

    [dim]napari-unet export nuclei.ome.zarr --to nuclei.geojson[/dim]

    Of a result labels, outlines, or a table of their shapes; of a model a package of the BioImage Model Zoo, or ONNX.

    [dim]napari-unet export nuclei.model --to nuclei.zip --author "A. Name" --licence CC-BY-4.0[/dim]
    """
    from ..cards import is_model, locate

    if "://" not in result and is_model(locate(result)):
        from ..zoo import Credit, export_model

        credit = Credit(author or (), licence, cite or ())
        tell(f"written to {shown(export_model(result, to, image, credit, overwrite=overwrite))}")
        return
    from ..exports import export as run

    how: Any = {"tracks": tracks, "trackastra": trackastra, "overwrite": overwrite}
    tell(f"written to {shown(run(result, to, image, **how))}")


@command
@with_opening("series", "allow_incomplete")
def info(
    path: Annotated[str, typer.Argument(help="An image, labels, a result, or a model.", show_default=False)],
    opening: Any = None,
) -> None:
    """Describe an image, labels or a result as they would be opened; of a model, print its card."""
    from ..cards import CARD, describe_model, holds_card, locate

    if "://" not in path:
        place = locate(path)
        place = place.parent if place.name == CARD else place
        if holds_card(place):
            tell_lines(describe_model(place))
            return
    from ..sources import describe

    tell_rows([*describe(path, **opening), *_labels(path, opening["series"])])


def _labels(path: str, series: str | None) -> list[tuple[str, str]]:
    """Describe what opens as labels; nothing for what does not."""
    from ..errors import UnetError
    from ..objects.labelling import label_rows
    from ..sources import open_labels

    try:
        return label_rows(open_labels(path, series=series))
    except UnetError:  # an image, a folder, an unfinished result: described above
        return []


@command
def verify(
    result: Annotated[Path, typer.Argument(help="A result of predict.", show_default=False)],
) -> None:
    """Read a result back and hold every block against the checksum it was written with."""
    from ..store import verify as run

    problems = shown(run(result))
    for problem in problems:
        say(problem)
    if problems:
        raise typer.Exit(FAILED)
    tell(f"{result} is as it was written")


@command
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("napari-unet-demo"),
    steps: Annotated[int, typer.Option(help="Steps of training; 120 take about a minute on two cores.", min=1)] = 120,
    restore: Annotated[bool, typer.Option("--restore", help="Take noise away instead of finding nuclei.")] = False,
    diffuse: Annotated[
        bool, typer.Option("--diffuse", help="Draw samples of what a noisy image may have been; some three minutes.")
    ] = False,
    break_lock: BreakLock = False,
) -> None:
    """Train on a small example, predict a larger OME-Zarr, evaluate, and draw an overview."""
    from ..demo import run_demo

    if restore and diffuse:
        raise typer.BadParameter("--restore and --diffuse are two demos; choose one")
    learn = "diffuse" if diffuse else "restore" if restore else "segment"
    found = shown(run_demo(out, steps=steps, learn=learn, break_lock=break_lock))
    tell_rows((name, getattr(found, name)) for name in ("model", "image", "result", "overview"))
    tell_rows((name, f"{score:.3f}") for name, score in found.scores.items())


@command
def doctor(
    speed: Annotated[bool, typer.Option(help="Measure how fast this machine is; ten seconds.")] = True,
) -> None:
    """Say what is installed, what this machine has and how fast it is, and what is wrong with it."""
    from ..doctor import doctor as run

    found = shown(run(speed))
    tell_rows(found.rows)
    for problem in found.problems:
        say(problem)
    if found.problems:
        raise typer.Exit(FAILED)
    tell("nothing is wrong with it")
