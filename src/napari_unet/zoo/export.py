"""Write a model as a package for the BioImage Model Zoo, checked by its own library, or as plain ONNX."""

import contextlib
import dataclasses
import datetime
import io
import os
import re
import warnings
import zipfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..arrays.stack import Stack
from ..cards import SHIPPED
from ..errors import ModelError, UsageError
from ..events import Progress
from ..files import check_free, disk, make_folder, replace
from ..model import Model, OneModel, as_model
from ..network.steps import applied
from ..sources import open_stack
from . import describe as parts
from .formats import ARCHITECTURE, architecture_file, onnx, standalone, state_dict, torchscript
from .sample import cover, test_image

DESCRIPTION = "rdf.yaml"  # the name that every version of the specification knows
OWN = ("napari-unet contributors",)  # who made the models that ship


@dataclasses.dataclass(frozen=True, slots=True)
class Credit:
    """Who made a model, and how it may be used.

    Parameters
    ----------
    authors : sequence of str
        Names of those who made the model.
    licence : str, optional
        As SPDX writes it, such as "CC-BY-4.0"; the one in the model's card if not given.
    cite : sequence of str
        What to cite beside the U-Net's paper; a DOI or an address in it is kept as that.
    """

    authors: Sequence[str] = ()
    licence: str | None = None
    cite: Sequence[str] = ()


def export_model(
    model: OneModel,
    path: str | os.PathLike[str],
    image: Any = None,
    credit: Credit | None = None,
    *,
    overwrite: bool = False,
) -> Generator[Progress, None, Path]:
    """Write a model for other programs: a package of the BioImage Model Zoo (``.zip``), or its network (``.onnx``).

    A package holds the weights as a PyTorch state dict with the network's source, as TorchScript and as ONNX, axes,
    pixel size, halo, what is done with intensities, an image to test it with and what comes out, a picture and a text.

    Parameters
    ----------
    model : Model, path or name
    path : path
        Ends in ``.zip`` or ``.onnx``.
    image : path, address or Stack, optional
        Image that the test and the picture are cut out of; nuclei that ship if not given.
    credit : Credit, optional
        Who made it, its licence, and what to cite; a package names authors and a licence.
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    Path of the file

    Raises
    ------
    UsageError
        Where authors or licence are not known, the ending says nothing, or a package to write it with is missing.
    ModelError
        Where the specification cannot say what the model is.
    OutputError
        Where something is there already.
    """
    path, found = Path(path).expanduser(), as_model(model)
    if path.suffix.lower() not in (".zip", ".onnx"):
        raise UsageError(f"{path} says no kind of file; a model is written as .zip (a package) or .onnx (the network)")
    check_free(path, overwrite)
    people = {} if path.suffix.lower() == ".onnx" else _people(found, credit or Credit())
    sample = test_image(found, image if isinstance(image, Stack) or image is None else open_stack(image))
    yield Progress(0, 1, "export", "the network")
    net = standalone(found)
    steps = parts.before(found), parts.behind(found)
    prepared = applied(steps[0], sample[None], "bc" + found.axes)
    graph = onnx(net, torch.from_numpy(prepared), found.axes, (parts.INPUT, parts.OUTPUT))
    content = graph
    if people:
        with torch.inference_mode():
            given = net(torch.from_numpy(prepared)).numpy()
        result = applied(steps[1], given, "bc" + found.axes)
        files = {
            parts.FILES["pytorch_state_dict"]: state_dict(found),
            parts.FILES["torchscript"]: torchscript(net, torch.from_numpy(prepared)),
            parts.FILES["onnx"]: graph,
            ARCHITECTURE: architecture_file(),
            parts.TEST_IN: _npy(sample[None]),
            parts.TEST_OUT: _npy(result),
            parts.COVER: cover(sample, result[0]),
            parts.DOCUMENTATION: parts.documentation(found, people["name"], found.unet).encode(),
        }
        content = _packed(files, parts.describe(found, people, files))
    with disk(path.parent):
        make_folder(path.parent)
        replace(path, content)
    yield Progress(1, 1, "export", f"{len(content)} bytes")
    return path


def _people(model: Model, credit: Credit) -> dict[str, Any]:
    """Return who made a model, and under which name and licence.

    Raises
    ------
    UsageError
        Where it is not known.
    """
    name, authors = str(model.record.get("name") or ""), credit.authors
    if not authors and name and (SHIPPED / name).is_dir() and as_model(name).sha256 == model.sha256:
        authors = OWN
    if not authors:
        raise UsageError("a package says who made the model: give a name with --author")
    known = re.match(r"[\w.+-]+", credit.licence or str(model.record.get("licence") or ""))
    if known is None:
        raise UsageError("a package says under which licence the model is: give it with --licence, such as CC-BY-4.0")
    return {
        "name": parts.full_name(name or f"{model.task.name} {model.config.ndim}D"),
        "authors": list(authors),
        "license": known[0],
        "cite": list(credit.cite),
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _npy(data: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, data)
    return out.getvalue()


def _packed(files: dict[str, bytes], description: dict[str, Any]) -> bytes:
    """Return the zip of a package, checked by the library of the specification.

    Raises
    ------
    UsageError
        Where that library is not installed.
    ModelError
        Where the specification does not take the description.
    """
    try:
        from bioimageio import spec
    except ImportError as error:
        raise UsageError("a package takes a library: pip install 'napari-unet-stacks[zoo]'") from error
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        checked = spec.build_description(
            description, context=spec.ValidationContext(perform_io_checks=False, log_warnings=False)
        )
    if isinstance(checked, spec.InvalidDescr):
        said = [f"{'.'.join(map(str, e.loc))}: {e.msg}" for d in checked.validation_summary.details for e in d.errors]
        raise ModelError(
            f"the specification of bioimage.io does not take this model: {', '.join(said)[:500]}; change what it names"
        )
    text = io.StringIO()
    spec.save_bioimageio_yaml_only(checked, file=text)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {DESCRIPTION: text.getvalue().encode(), **files}.items():
            archive.writestr(name, content)
    return out.getvalue()
