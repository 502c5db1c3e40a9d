"""Commands that make something: models and results."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..inference.config import MOST_SEED, PredictConfig
from ..training.config import TrainConfig
from .options import with_opening, with_settings
from .output import say, tell, tell_lines, tell_table
from .shell import FAILED, BreakLock, Source, command, loading, shown

if TYPE_CHECKING:
    from ..training.fingerprint import Pair

Images = Annotated[
    list[str],
    typer.Option("--images", help="Images: files, zarr groups, or a folder.", metavar="PATH", show_default=False),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--labels", help="Their labels, paired by name with the images.", metavar="PATH", show_default=False),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--targets",
        help="Target images; the images themselves if not given.",
        metavar="PATH",
        show_default=False,
    ),
]
ModelPath = Annotated[
    list[Path],
    typer.Option(
        "--model",
        help="Model folder, or the name of a model that ships; several are run as a cascade.",
        show_default=False,
    ),
]


@command
@with_settings(TrainConfig)
@with_opening("axes", "channel", "pixel_size", "series", "allow_incomplete")
def train(
    images: Images,
    out: Annotated[Path, typer.Option(help="Model folder to make.", show_default=False)],
    labels: Labels = None,
    targets: Targets = None,
    object_classes: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Class of each object: a table (id, class), a label image, or a folder of them, or one per class.",
            show_default=False,
        ),
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Model to fine-tune.", show_default=False)] = None,
    config: Any = None,
    opening: Any = None,
) -> None:
    """Train on images and labels, or on images and target images; the result is a model folder.

    [dim]napari-unet train --images raw/ --labels painted/ --out nuclei.model --minutes 15[/dim]

    Label 0 is background; with --sparse it is unlabelled. Stopped with Ctrl-C, the same command with --resume goes on,
    and [bold]finish[/bold] makes a model of the best so far.

    [dim]napari-unet train --task restore --images noisy/ --targets clean/ --out denoise.model[/dim]

    With --blind the noisy images alone are enough. --task super_resolve --upscale 2 2 takes coarse and fine images, or
    fine ones alone; --blur and --noise degrade the input before training.

    [dim]napari-unet train --task diffuse --condition labels --images raw/ --labels painted/ --out synth.model[/dim]

    Learns to make images for labels, which [bold]generate[/bold] does.
    """
    from ..arrays.cached import check_countable
    from ..sources import list_images, open_labels, open_stack, pair_paths
    from ..sources.arrange import check_letters
    from ..sources.pairs import paired_lines

    given = labels if config.reads_labels else targets
    if (targets if config.reads_labels else labels) or not (given or not config.reads_labels):
        what, other = ("--labels", "--targets") if config.reads_labels else ("--targets", "--labels")
        raise typer.BadParameter(f"the task {config.task} needs {what}, not {other}")

    def opened(image: Path, other: Path) -> "Pair":
        stack = open_stack(image, **opening)
        if config.reads_labels:
            axes = opening["axes"] and check_letters(opening["axes"]).replace("c", "")
            return stack, open_labels(other, axes, allow_incomplete=opening["allow_incomplete"])
        return stack, stack if other == image else open_stack(other, **opening)

    paths = pair_paths(images, given) if given else [(path, path) for each in images for path in list_images(each)]
    pairs = [opened(*each) for each in paths]
    if object_classes is not None:
        pairs = _classed(pairs, object_classes, config)
    for line in paired_lines(paths):
        say(line, "")
    for stack in itertools.chain(*pairs):
        check_countable(stack)
    from ..model import load_model  # they load torch, which takes seconds: what cannot be opened is said before
    from ..training.fit import train as run

    model = shown(run(pairs, out, config, init=None if init is None else load_model(init)))
    tell_lines(model.card())


def _classed(pairs: "list[Pair]", classes: Path, config: TrainConfig) -> "list[Pair]":
    """Give the objects of labels their classes."""
    from ..objects.classes import with_classes

    if config.task != "instances":
        raise typer.BadParameter(
            f"--object-classes are of objects; learn them with --task instances, not {config.task}"
        )
    labels = with_classes([label for _, label in pairs], classes)
    say(f"classes of objects: {', '.join(labels[0].object_classes)}", "")
    return [(image, label) for (image, _), label in zip(pairs, labels, strict=True)]


@command
def finish(
    out: Annotated[Path, typer.Argument(help="The --out of a training that was stopped.", show_default=False)],
    break_lock: BreakLock = False,
) -> None:
    """Make a model of a training that was stopped: the best so far."""
    from ..training.run import finishing

    tell_lines(shown(finishing(out, break_lock)).card())


@command
def import_(
    package: Annotated[
        Path,
        typer.Argument(help="Package of bioimage.io, result of nnU-Net, file of weights, .pt2.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to make.", show_default=False)],
    network: Annotated[
        Path | None, typer.Option(help="JSON with what a file of weights does not say.", show_default=False)
    ] = None,
    gives: Annotated[str, typer.Option(help="What its results are: labels or image.")] = "auto",
    trust_torchscript: Annotated[
        bool, typer.Option("--trust-torchscript", help="Follow a program (TorchScript, .pt2) once, confined: to ONNX.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model that is there.")] = False,
) -> None:
    """Make a model of a package of the BioImage Model Zoo, of a result of nnU-Net or of weights; no code of it is run.

    [dim]napari-unet import zoo/package.zip --out theirs.model[/dim]

    How far the network looks is measured or computed, and a package's own test must come out.
    """
    from ..zoo import import_model

    how = {"trust_torchscript": trust_torchscript, "overwrite": overwrite}
    tell_lines(shown(import_model(package, out, cast("Any", gives), network, **how)).card())


@command
@with_settings(PredictConfig)
@with_opening("axes", "level", "channel", "time", "pixel_size", "series", "allow_incomplete")
def predict(
    stack: Source,
    model: ModelPath,
    out: Annotated[
        Path | None, typer.Option(help="Result: RESULT.ome.zarr, or RESULT.tif.", show_default=False)
    ] = None,
    config: Any = None,
    opening: Any = None,
) -> None:
    """Run a model on a stack of any size; the result is OME-Zarr, or a TIFF: labels, or an image.

    [dim]napari-unet predict stack.ome.zarr --model nuclei.model --out nuclei.ome.zarr[/dim]

    Stopped or killed, the same command goes on where it was and ends with the same bytes.
    """
    with loading():
        from ..inference.pixelsize import size_notes
        from ..inference.predict import predict as run
        from ..model import load_model
        from ..sources import open_stack

    if (out is None) != config.in_source:
        raise typer.BadParameter(
            "give --out RESULT.ome.zarr or RESULT.tif, or --in-source to write into the source's own group"
        )
    source = open_stack(stack, **opening)
    models = [load_model(each) for each in model]
    for note in (*source.notes, *size_notes(source, models[0], config)):
        tell(note)
    result = shown(run(source, models, out or Path(stack), config))
    tell(f"the result is in {result.source}")


@command
@with_settings(PredictConfig)
@with_opening("axes", "level", "time", "pixel_size", "series", "allow_incomplete")
def generate(
    model: Annotated[
        Path, typer.Option(help="Model trained with --task diffuse --condition labels, or none.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Result: RESULT.ome.zarr, or RESULT.tif.", show_default=False)],
    labels: Annotated[
        str | None, typer.Argument(help="Labels of objects, one number each; 0 is background.", show_default=False)
    ] = None,
    shape: Annotated[
        list[int] | None,
        typer.Option(help="Without labels: size along z y x, or y x.", min=1, show_default=False),
    ] = None,
    config: Any = None,
    opening: Any = None,
) -> None:
    """Make an image that fits labels, or, with a model for none, one of a shape; labels may be larger than memory.

    [dim]napari-unet generate labels.ome.zarr --model synth.model --out image.ome.zarr[/dim]

    Stopped or killed, the same command goes on where it was; --seed makes another image.
    """
    with loading():
        from ..inference.predict import predict as run
        from ..inference.prepare import to_generate
        from ..model import load_model
        from ..sources import open_labels

    if (labels is None) == (not shape):
        raise typer.BadParameter("give labels, or --shape 512 512 to a model that makes images for none")
    found = load_model(model)
    source = to_generate(found, None if labels is None else open_labels(labels, **opening), tuple(shape or ()))
    result = shown(run(source, found, out, config))
    tell(f"the result is in {result.source}")


@command
@with_opening("axes", "level", "time", "pixel_size", "series", "allow_incomplete")
def simulate(
    labels: Annotated[list[str], typer.Argument(help="Labels of objects, or a folder of them.", show_default=False)],
    shape: Annotated[list[int], typer.Option(help="Size along z y x, or y x.", min=1, show_default=False)],
    out: Annotated[Path, typer.Option(help="Result: LABELS.ome.zarr.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Another number gives other objects.", min=0, max=MOST_SEED)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run wrote there.")] = False,
    opening: Any = None,
) -> None:
    """Make labels of objects as large, as formed and as dense as those of given labels, to make images for.

    [dim]napari-unet simulate painted/ --shape 2048 2048 --out labels.ome.zarr[/dim]

    Objects are spread evenly: layers, clusters and gaps of the given labels are not there.
    """
    from ..objects.simulate import simulate_labels
    from ..sources import list_images, open_labels
    from ..store.save import save_stack

    given = [open_labels(path, **opening) for each in labels for path in list_images(each)]
    found = simulate_labels(given, tuple(shape), seed)
    path = shown(save_stack(found, out, kind="labels", name="simulated", overwrite=overwrite))
    tell(f"the labels are in {path}")


@command
@with_settings(PredictConfig)
@with_opening("axes", "level", "channel", "series", "allow_incomplete")
def batch(
    folder: Annotated[
        str,
        typer.Argument(help="Folder with images, a plate, or an address of one.", metavar="FOLDER", show_default=False),
    ],
    model: ModelPath,
    out: Annotated[Path, typer.Option(help="Folder for the results and summary.csv.", show_default=False)],
    pattern: Annotated[str | None, typer.Option(help="Use only files that match, such as *.tif.")] = None,
    config: Any = None,
    opening: Any = None,
) -> None:
    """Run a model on every image of a folder.

    [dim]napari-unet batch stacks/ --model nuclei.model --out results/ --pattern '*.tif'[/dim]

    What is done is skipped, a bad file does not stop the rest, and summary.csv says what happened to each.
    """
    with loading():
        from ..batch import run_batch
        from ..model import load_model
        from ..sources.pairs import short_name

    rows = shown(run_batch(folder, [load_model(each) for each in model], out, config, pattern, **opening))
    cells = [(short_name(Path(row.file)), row.state, f"{row.seconds:.1f}", row.message) for row in rows]
    tell_table(("file", "state", "seconds", "message"), cells)
    if any(row.state == "failed" for row in rows):
        raise typer.Exit(FAILED)


@command
@with_settings(PredictConfig)
@with_opening("axes", "level", "channel", "series", "allow_incomplete")
def compare(
    images: Annotated[Path, typer.Argument(help="An image, or a folder of them.", show_default=False)],
    truth: Annotated[Path, typer.Argument(help="Its ground truth, or a folder of them.", show_default=False)],
    model: Annotated[
        list[Path],
        typer.Option("--model", help="Model folder, or the name of one that ships; at least two.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results, table and picture.", show_default=False)],
    kind: Annotated[str | None, typer.Option(help="semantic, instances or intensity; as the models give.")] = None,
    config: Any = None,
    opening: Any = None,
) -> None:
    """Run several models on the same images, and say which is best.

    [dim]napari-unet compare raw/ truth/ --model nuclei-2d --model own.model --out compared/[/dim]

    comparison.csv has the scores of each, comparison.png shows what each found. What is done is skipped.
    """
    from ..comparison import PICTURE, compare_models

    found = shown(compare_models(images, truth, model, out, config, kind, **opening))
    order = found[0].order
    ways = [name for name in (order, f"{order}_pooled", f"{order}_mean") if any(name in each.scores for each in found)]
    cells = [
        (each.name, *(f"{each.scores[name]:.4f}" if name in each.scores else "" for name in ways), each.message)
        for each in found
    ]
    tell_table(("model", *ways, "message"), cells)
    tell(f"the picture is {out / PICTURE}")
    if any(each.failed for each in found):
        raise typer.Exit(FAILED)


def _coded(way: str, stack: str, model: Path, out: Path, opening: Any, config: Any) -> None:
    from ..inference import encode as parts
    from ..model import load_model
    from ..sources import open_stack

    result = shown(getattr(parts, way)(open_stack(stack, **opening), load_model(model), out, config))
    tell(f"the result is in {result.source}")


Autoencoder = Annotated[Path, typer.Option("--model", help="Model trained with --task autoencode.", show_default=False)]
Coded = Annotated[Path, typer.Option(help="Result, RESULT.ome.zarr.", show_default=False)]


@command
@with_settings(PredictConfig)
@with_opening("axes", "series", "allow_incomplete")
def encode(
    stack: Source,
    model: Autoencoder,
    out: Coded,
    config: Any = None,
    opening: Any = None,
) -> None:
    """Encode a stack with an autoencoder: the bottleneck as a coarse OME-Zarr of many channels."""
    _coded("encode", stack, model, out, opening, config)


@command
@with_settings(PredictConfig)
@with_opening("series", "allow_incomplete")
def decode(
    stack: Annotated[str, typer.Argument(help="A result of encode.", metavar="STACK", show_default=False)],
    model: Autoencoder,
    out: Coded,
    config: Any = None,
    opening: Any = None,
) -> None:
    """Decode what encode wrote back into an image."""
    _coded("decode", stack, model, out, opening, config)
