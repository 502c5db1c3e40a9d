"""The shell: the same verbs as the library, its settings as options, its errors as one line."""

import contextlib
import functools
import json
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from ..errors import UnetError
from ..inference.config import PredictConfig
from ..training.config import TrainConfig
from .options import Several, with_settings
from .progress import show

if TYPE_CHECKING:
    from ..events import Epoch, Progress
    from ..training.fingerprint import Pair

T = TypeVar("T")
CANCELLED, INCOMPLETE, FAILED = 130, 7, 3

app = typer.Typer(
    name="napari-unet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train U-Nets and run them on microscopy stacks larger than memory.\n\n"
    "Results are OME-Zarr, do not depend on how the work was cut up, and a command that was stopped goes on "
    "where it was when it is run again.",
    epilog="Exit codes: 0 done, 2 wrong usage, 3 bad input, 4 refused as unsafe, 5 output in the way, "
    "6 disk or memory, 7 incomplete but resumable, 130 cancelled.",
)

Images = Annotated[
    list[Path], typer.Option("--images", help="Images: files, zarr groups, or a folder.", show_default=False)
]
Labels = Annotated[
    list[Path] | None,
    typer.Option("--labels", help="Their labels, paired by name with the images.", show_default=False),
]
Targets = Annotated[
    list[Path] | None,
    typer.Option(
        "--targets", help="Images: what they should become; the images themselves if not given.", show_default=False
    ),
]
ModelPath = Annotated[
    list[Path],
    typer.Option(
        "--model",
        help="Folder of a model, or the name of one that ships; several run one into the other.",
        show_default=False,
    ),
]
Axes = Annotated[str | None, typer.Option(help="Axes of the stack, letters of tczyx, where its file does not say.")]
Level = Annotated[int | None, typer.Option(help="Level of a pyramid, 0 is the finest.", min=0)]
Channel = Annotated[str | None, typer.Option(help="Take one channel: its number, from 0, or its name.")]
Time = Annotated[int | None, typer.Option(help="Take one time point, from 0.", min=0)]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command whose errors become one line and an exit code."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except UnetError as error:
            if kwargs.get("debug"):
                raise
            _say(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            _say("stopped; what is done is kept: run the same command again to go on (train: add --resume)")
            raise typer.Exit(CANCELLED) from None

    return app.command(cls=Several)(guarded)


def _say(line: str) -> None:
    sys.stderr.write(f"napari-unet: {' '.join(line.split())}\n")


def _channel(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdigit() else text


@command
@with_settings(TrainConfig)
def train(
    images: Images,
    out: Annotated[Path, typer.Option(help="Model folder to make.", show_default=False)],
    labels: Labels = None,
    targets: Targets = None,
    axes: Axes = None,
    channel: Channel = None,
    init: Annotated[Path | None, typer.Option(help="Model to go on from.", show_default=False)] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    config: Any = None,
) -> None:
    """Learn from images and their labels, or from images and what they should become; the result is a model folder.

    [dim]napari-unet train --images raw/ --labels painted/ --out nuclei.model --minutes 15[/dim]

    Label 0 is background; with --sparse it is what nobody has painted yet. Stopped with Ctrl-C, the same command with
    --resume goes on, and [bold]finish[/bold] makes a model of the best so far.

    [dim]napari-unet train --task restore --images noisy/ --targets clean/ --out denoise.model[/dim]

    With --blind the noisy images are enough. --task super_resolve --factor 2 2 learns from coarse and fine images, or
    from fine ones alone; --blur and --noise make the input worse before it is learnt from.
    """
    from ..model import load_model
    from ..sources import list_images, open_labels, open_stack, pair_paths
    from ..training.fit import train as run

    given = targets if config.learns_images else labels
    if (labels if config.learns_images else targets) or not (given or config.learns_images):
        what, other = ("--targets", "--labels") if config.learns_images else ("--labels", "--targets")
        raise typer.BadParameter(f"the task {config.task} is learnt from {what}, not from {other}")

    def opened(image: Path, other: Path) -> "Pair":
        stack = open_stack(image, axes, channel=_channel(channel))
        if not config.learns_images:
            return stack, open_labels(other, axes and axes.replace("c", ""))
        return stack, stack if other == image else open_stack(other, axes, channel=_channel(channel))

    paths = pair_paths(images, given) if given else [(path, path) for each in images for path in list_images(each)]
    pairs = [opened(*each) for each in paths]
    model = _shown(run(pairs, out, config, init=None if init is None else load_model(init)))
    Console().print(model.card(), markup=False, highlight=False)


@command
def finish(
    out: Annotated[Path, typer.Argument(help="The --out of a training that was stopped.", show_default=False)],
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make a model of a training that was stopped: the best so far."""
    from ..training.fit import finish as run

    Console().print(run(out).card(), markup=False, highlight=False)


@command
@with_settings(PredictConfig)
def predict(
    stack: Annotated[Path, typer.Argument(help="OME-Zarr, zarr, TIFF, PNG or JPEG.", show_default=False)],
    model: ModelPath,
    out: Annotated[Path | None, typer.Option(help="Result, RESULT.ome.zarr.", show_default=False)] = None,
    axes: Axes = None,
    level: Level = None,
    channel: Channel = None,
    time: Time = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    config: Any = None,
) -> None:
    """Run a model on a stack of any size; the result is OME-Zarr: labels, or an image.

    [dim]napari-unet predict stack.ome.zarr --model nuclei.model --out nuclei.ome.zarr[/dim]

    Stopped or killed, the same command goes on where it was and ends with the same bytes.
    """
    from ..inference.predict import predict as run
    from ..model import load_model
    from ..sources import open_stack

    if (out is None) != config.in_source:
        raise typer.BadParameter("give --out RESULT.ome.zarr, or --in-source to write into the source's own group")
    source = open_stack(stack, axes, level=level, channel=_channel(channel), time=time)
    for note in source.notes:
        Console().print(note, markup=False, highlight=False)
    result = _shown(run(source, [load_model(each) for each in model], out or stack, config))
    Console().print(f"the result is in {result.source}", markup=False, highlight=False, soft_wrap=True)


@command
@with_settings(PredictConfig)
def batch(
    folder: Annotated[Path, typer.Argument(help="Folder with images.", show_default=False)],
    model: ModelPath,
    out: Annotated[Path, typer.Option(help="Folder for the results and summary.csv.", show_default=False)],
    pattern: Annotated[str | None, typer.Option(help="Take only files that match, as *.tif.")] = None,
    axes: Axes = None,
    level: Level = None,
    channel: Channel = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    config: Any = None,
) -> None:
    """Run a model on every image of a folder.

    [dim]napari-unet batch stacks/ --model nuclei.model --out results/ --pattern '*.tif'[/dim]

    What is done is skipped, a bad file does not stop the rest, and summary.csv says what happened to each.
    """
    from ..batch import run_batch
    from ..model import load_model

    rows = _shown(
        run_batch(
            folder,
            [load_model(each) for each in model],
            out,
            config,
            pattern,
            axes=axes,
            level=level,
            channel=_channel(channel),
        )
    )
    table = Table("file", "state", "seconds", "message")
    for row in rows:
        table.add_row(Path(row.file).name, row.state, f"{row.seconds:.1f}", row.message)
    Console().print(table)
    if any(row.state == "failed" for row in rows):
        raise typer.Exit(FAILED)


def _coded(way: str, stack: Path, model: Path, out: Path, axes: str | None, config: Any) -> None:
    from ..inference import parts
    from ..model import load_model
    from ..sources import open_stack

    result = _shown(getattr(parts, way)(open_stack(stack, axes), load_model(model), out, config))
    Console().print(f"the result is in {result.source}", markup=False, highlight=False, soft_wrap=True)


Autoencoder = Annotated[Path, typer.Option("--model", help="Model learnt with --task autoencode.", show_default=False)]
Coded = Annotated[Path, typer.Option(help="Result, RESULT.ome.zarr.", show_default=False)]


@command
@with_settings(PredictConfig)
def encode(
    stack: Annotated[Path, typer.Argument(help="OME-Zarr, zarr, TIFF, PNG or JPEG.", show_default=False)],
    model: Autoencoder,
    out: Coded,
    axes: Axes = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    config: Any = None,
) -> None:
    """Describe each place of a stack by what passes the bottleneck: a coarse OME-Zarr of many channels."""
    _coded("encode", stack, model, out, axes, config)


@command
@with_settings(PredictConfig)
def decode(
    stack: Annotated[Path, typer.Argument(help="What encode made.", show_default=False)],
    model: Autoencoder,
    out: Coded,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    config: Any = None,
) -> None:
    """Turn descriptions back into the image they stand for."""
    _coded("decode", stack, model, out, None, config)


@command
def evaluate(
    result: Annotated[Path, typer.Argument(help="What is judged: a file, a store, or a folder.", show_default=False)],
    truth: Annotated[Path, typer.Argument(help="What is right.", show_default=False)],
    kind: Annotated[str | None, typer.Option(help="semantic, instances or intensity; decided from the data.")] = None,
    axes: Axes = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write the scores to this file too.")] = None,
    layers: Annotated[Path | None, typer.Option(help="OME-Zarr for hits, misses and false objects.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Score a result against the truth.

    [dim]napari-unet evaluate nuclei.ome.zarr truth.tif --kind semantic --json scores.json[/dim]
    """
    from ..evaluation import evaluate as run

    found = run(result, truth, kind, axes=axes)
    console = Console()
    for note in found.notes:
        console.print(note, markup=False, highlight=False)
    console.print(found.table(), markup=False, highlight=False)
    if out is not None:
        out.write_text(json.dumps(found.to_json(), indent=1) + "\n")
    if layers is not None:
        from ..comparison import compare

        for time, objects in enumerate(_shown(compare(result, truth, layers, axes))):
            for name in ("misses", "false", "split", "merged"):
                ids = getattr(objects, name)
                shown = ", ".join(map(str, ids[:20])) + (", ..." if len(ids) > 20 else "")
                console.print(f"{f'time {time}: ' if time else ''}{name}: {shown or 'none'}", highlight=False)


@command
def annotate(
    result: Annotated[Path, typer.Argument(help="A result of predict --uncertainty.", show_default=False)],
    count: Annotated[int, typer.Option(help="Number of patches.", min=1)] = 10,
    patch: Annotated[int | None, typer.Option(help="Edge of a patch in pixels; 128, in 3-D 32, if not given.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Say where to annotate next: the patches in which the network is the least certain."""
    from ..inference.annotate import annotate_next

    table = Table("centre, in pixels", "uncertainty")
    for centre, mean in annotate_next(result, count, patch):
        table.add_row(" ".join(f"{c:.0f}" for c in centre), f"{mean:.3f}")
    Console().print(table)


@command
def info(
    path: Annotated[Path, typer.Argument(help="An image, labels, a result, or a model.", show_default=False)],
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Say what a path would be opened as; of a model, its card."""
    from ..model import is_model, load_model
    from ..sources import describe

    if is_model(path):
        Console().print(load_model(path).card(), markup=False, highlight=False)
        return
    table = Table.grid(padding=(0, 2))
    for name, value in describe(path):
        table.add_row(name, value)
    Console().print(table, highlight=False)


@command
def verify(
    result: Annotated[Path, typer.Argument(help="A result of predict.", show_default=False)],
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Read a result back and hold every block against the checksum it was written with."""
    from ..store import verify as run

    problems = _shown(run(result))
    for problem in problems:
        _say(problem)
    if problems:
        raise typer.Exit(FAILED)
    Console().print(f"{result} is as it was written", markup=False, highlight=False)


@command
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("napari-unet-demo"),
    steps: Annotated[int, typer.Option(help="Steps of training; 120 take about a minute on two cores.", min=1)] = 120,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train on a small example, predict a larger OME-Zarr, evaluate, and draw an overview."""
    from ..demo import run_demo

    found = _shown(run_demo(out, steps=steps))
    table = Table.grid(padding=(0, 2))
    for name in ("model", "image", "result", "overview"):
        table.add_row(name, str(getattr(found, name)))
    for name, score in found.scores.items():
        table.add_row(name, f"{score:.3f}")
    Console().print(table, highlight=False, soft_wrap=True)


def _shown(events: "Generator[Progress | Epoch, None, T] | Generator[Progress, None, T]") -> T:
    """Show the events of a piece of work while it runs, and return its result; closed cleanly when interrupted."""
    with _interruptible(), contextlib.closing(events):
        return show(events)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Run the command line."""
    app()
