"""Everything that is checked and decided before the first step, and before anything is written."""

import dataclasses
import itertools
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from ..arrays.cached import check_countable
from ..errors import DataError, ModelError, OutputError, ResourceError
from ..events import Progress
from ..intensities.looks import appearance, least_contrast
from ..intensities.normalise import Normalisation
from ..model import Model
from ..objects.config import MANY
from ..objects.labelling import GROW
from ..store.plan import FOLDER
from ..task import Diffuse, Instances, Semantic, Task
from ..task.losses import BACKGROUND
from ..task.semantic import usual_names
from .annotation import ObjectLabels
from .config import TrainConfig
from .fingerprint import Fingerprint, Pair, fingerprint
from .holdout import Division, former_division, hold_out
from .images import image_fingerprint, inputs_of, make_restoration
from .labels import about_dropped, check_labels, check_object_classes, labels_of, notes_of
from .pixelsize import same_axes
from .plan import TrainingPlan, make_plan
from .run import RUN, Run, training_folder
from .split import Sample, samples
from .working import Working, choose_working, object_size

CACHE_BYTES = 2**30  # 1 GiB: data of that size are held in memory, larger ones read patch by patch
RESAMPLED = "look at the data at the pixel size of objects"
NAMED = 5  # images that a line names


def set_up(
    pairs: Sequence[Pair], out: Path, config: TrainConfig, init: Model | None, validation: Sequence[Pair]
) -> Generator[Progress, None, tuple[Run, list[Sample], list[Sample]]]:
    """Check, measure, plan and divide; then make the run's folder, or open it again, and lock it.

    Returns
    -------
    (run, training samples, validation samples)

    Raises
    ------
    DataError, UsageError, ModelError, OutputError, ResourceError
        As `train`; nothing has been written then.
    """
    folder = training_folder(out)
    check_object_classes([*pairs, *validation], config)
    pairs, validation = _taken(pairs, config), _taken(validation, config)
    found = _existing(out, folder, config)
    pairs, facts, working = yield from _looked_at(pairs, config, init, None if found is None else found.plan)
    if working is not None and working.changes:
        validation = working.brought(validation, config.sparse)
    extra = yield from _measure(validation, config, "look at the validation data", facts)
    pairs, validation = facts.kept(pairs), extra.kept(validation) if extra is not None else validation
    digest = facts.digest + (extra.digest if extra is not None else "")
    if found is None:
        task, plan = _decide(facts, config, init, working)
        data = facts.to_json() | {"digest": digest} | _usual(facts)
        run = Run(folder, plan, task, _identity(config, init), data, pairs[0][0].channel_names)
    else:
        run = found
        run.check_same(_identity(config, init), digest)
        run.data |= _usual(facts)  # of a training that began before there was such a record, too
        if config.learning_rate is not None:
            run.plan = dataclasses.replace(run.plan, learning_rate=config.learning_rate)
    for line in [*(_left_out(extra) if extra is not None else []), *_story(facts, run.plan, run.task)]:
        yield Progress(0, 1, "plan", line)
    training = _samples(pairs, facts, run.plan, init)
    if extra is not None:
        held_out = _samples(validation, extra, run.plan, init)
    else:
        training, held_out = yield from _divide(training, facts, config, run, found is None)
    yield from (Progress(0, 1, "plan", line) for line in _unseen(training, held_out, facts, run.task))
    if sum(s.nbytes for s in training + held_out) <= CACHE_BYTES:
        training, held_out = [s.cached() for s in training], [s.cached() for s in held_out]
    if found is None:
        run.create(config.break_lock)
    else:
        run.take(config.break_lock)
    return run, training, held_out


def _looked_at(
    pairs: Sequence[Pair], config: TrainConfig, init: Model | None, plan: TrainingPlan | None = None
) -> Generator[Progress, None, tuple[Sequence[Pair], Fingerprint, Working | None]]:
    """Measure pairs, and bring them to the size at which they are learnt; return them, the facts, and the size."""
    facts = yield from _measure(pairs, config, "look at the data")
    working = _working(pairs, facts, config, init, plan)
    if working is None or not working.changes:
        return pairs, facts, working
    pairs, own = working.brought(pairs, config.sparse), facts.labelling
    facts = yield from _measure(pairs, config, RESAMPLED)
    if own is not None and facts.labelling is not None:
        # Ids are as they were painted: of an enlarged volume each plane is there twice. What is lost is lost there.
        facts = dataclasses.replace(facts, labelling=dataclasses.replace(own, lost=facts.labelling.lost))
    return pairs, facts, working


def _divide(
    every: Sequence[Sample], facts: Fingerprint, config: TrainConfig, run: Run, new: bool
) -> Generator[Progress, None, tuple[list[Sample], list[Sample]]]:
    """Hold out some of each kind, or, in a run that goes on, what has been held out since it began."""
    recorded = run.data.get("split")
    if recorded is not None:
        found = Division.from_json(recorded)
    else:
        found = hold_out(every, config.seed, facts.objects) if new else former_division(every, config.seed)
    run.data["split"] = found.to_json()
    yield Progress(0, 1, "plan", found.story(len(every)))
    return found.divide(every)


def _unseen(training: Sequence[Sample], held_out: Sequence[Sample], facts: Fingerprint, task: Task) -> list[str]:
    """Say which classes are learnt and not held out: of them the score says nothing."""
    if task.learns_from == "image":
        return []
    learnt, held = ({v for s in part for v, at in s.places.items() if len(at)} for part in (training, held_out))
    values = _names(facts, task)
    if facts.objects is not None:
        if not held & set(sorted(values)[1:]):
            return ["no object is held out: the score says nothing, and the validation loss chooses the epoch"]
        values = {value: name for value, name in values.items() if name in facts.objects.kinds}
    missing = [f"{value} {values[value]}" for value in sorted(learnt - held) if value in values]
    return [f"nothing is held out of class {', '.join(missing)}: the score says nothing of it"] if missing else []


def _samples(pairs: Sequence[Pair], facts: Fingerprint, plan: TrainingPlan, init: Model | None) -> list[Sample]:
    """Return what patches are taken from; a model to start from takes intensities its own way."""
    found = samples(pairs, facts, plan.axes, plan.factors)
    if init is None:
        return found
    return [dataclasses.replace(sample, statistics=init.normalisation.measure(sample.image)) for sample in found]


def _names(facts: Fingerprint, task: Task) -> dict[int, str]:
    """Return the name of each value that is counted in labels."""
    return facts.objects.names if facts.objects is not None else dict(zip(facts.values, task.names, strict=True))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """What a training would do.

    Parameters
    ----------
    facts : Fingerprint
        Of the data.
    """

    facts: Fingerprint
    plan: TrainingPlan
    task: Task

    def lines(self) -> list[str]:
        """Describe the training data and the plan, one line each."""
        facts, count = self.facts, len(self.facts.stacks)
        totals = {v: sum(f.counts.get(v, 0) for f in facts.stacks) for v in facts.values}
        if facts.intensities is not None:
            return _story(facts, self.plan, self.task)
        found = [f"{count} labelled image{'s' * (count != 1)}{', 0 is unlabelled' * facts.sparse}"]
        names = _names(facts, self.task)
        found += [
            f"{value} {names[value]}: {totals[value]:,} voxels, {100 * facts.frequencies[value]:.3g} %"
            for value in facts.values
        ]
        if facts.diameters:
            low, middle, high = facts.diameters
            found.append(f"objects: {middle:.0f} pixels across, half of them {low:.0f} to {high:.0f}")
        return [*_left_out(facts), *found, *self.plan.summary()]


def outlook(
    pairs: Sequence[Pair], config: TrainConfig | None = None, init: Model | None = None
) -> Generator[Progress, None, Outlook]:
    """Analyse data and plan, as `train` does before its first step; nothing is written.

    Parameters
    ----------
    pairs : sequence of (image, labels)
    init : Model, optional
        Model to start from.

    Raises
    ------
    DataError, UsageError, ModelError, ResourceError
        As `train`.
    """
    config = config or TrainConfig()
    check_object_classes(pairs, config)
    _, facts, working = yield from _looked_at(_taken(pairs, config), config, init)
    task, plan = _decide(facts, config, init, working)
    return Outlook(facts, plan, task)


def _existing(out: Path, folder: Path, config: TrainConfig) -> Run | None:
    """Return the run to go on with, None for a new one; refuse what exists otherwise."""
    started = (folder / RUN).is_file()
    if config.resume and started:
        return Run.open(folder)
    for path in (out, folder):
        if (path.exists() or path.is_symlink()) and not (
            path == folder and path.is_dir() and not started and _ours(path)
        ):
            hint = "continue it with --resume, or choose another --out" if started else "choose another --out"
            raise OutputError(f"{path} exists already; {hint}")
    parent = next(p for p in out.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ResourceError(f"{parent} cannot be written to; choose another --out")
    return None


def _ours(folder: Path) -> bool:
    """Whether a folder holds nothing but what a run that died in its first moment leaves."""
    return all(p.name in (FOLDER, "plan.txt") or p.suffix == ".partial" for p in folder.iterdir())


def _identity(config: TrainConfig, init: Model | None) -> dict[str, Any]:
    return config.identity() | {"init": init.sha256 if init is not None else None}


def _measure(
    pairs: Sequence[Pair], config: TrainConfig, stage: str, training: Fingerprint | None = None
) -> Generator[Progress, None, Any]:
    """Fingerprint with events; None for no pairs after the first."""
    if training is not None and not pairs:
        return None
    if config.learns_images:
        work = image_fingerprint(pairs, config, training)
    else:
        objects = None
        if config.task == "instances":
            objects = ObjectLabels(config.background if config.sparse else None, pairs[0][1].object_classes)
        work = fingerprint(pairs, config.sparse, config.binary, training, objects)
    facts = yield from _told(work, stage)
    return dataclasses.replace(facts, notes=(*facts.notes, *notes_of(pairs)))


def _taken(pairs: Sequence[Pair], config: TrainConfig) -> list[Pair]:
    """Return pairs as the network is trained on them."""
    for stack in itertools.chain(*pairs):
        check_countable(stack)
    pairs = [same_axes(*pair) for pair in pairs]
    return inputs_of(pairs, config) if config.learns_images else labels_of(pairs, config)


def _told(work: Generator[tuple[int, int], None, Fingerprint], stage: str) -> Generator[Progress, None, Fingerprint]:
    while True:
        try:
            done, total = next(work)
        except StopIteration as end:
            return end.value
        yield Progress(done, total, stage)


def _working(
    pairs: Sequence[Pair], facts: Fingerprint, config: TrainConfig, init: Model | None, plan: TrainingPlan | None = None
) -> Working | None:
    """Choose the pixel size at which objects are learnt, or take that of the plan of a run that goes on."""
    if config.task != "instances":
        return None
    if plan is not None:
        return Working(plan.axes, plan.shrink or (1.0,) * len(plan.axes), plan.spacing, plan.units)
    task = make_task(facts, config)
    draft = make_plan(facts, config, task.out_channels, None if init is None else init.learnt)
    size = object_size(pairs, facts, draft.network.ndim)
    return choose_working(size, draft.network, (draft.spacing, draft.units), config, init)


def _decide(
    facts: Fingerprint, config: TrainConfig, init: Model | None, working: Working | None = None
) -> tuple[Task, TrainingPlan]:
    """Decide what is learnt, and how."""
    if init is not None and (init.task.learns_from == "image") != config.learns_images:
        raise ModelError(
            f"the model to start from has the task {init.task.name}, not {config.task}; choose one that was trained "
            f"on {'images' if config.learns_images else 'labels'}"
        )
    normalisation = None if init is None else init.normalisation
    if facts.intensities is not None:
        image = facts.intensities.image
        normalisation = normalisation or Normalisation("fixed", offset=image.offset, scale=image.scale)
        restored = make_restoration(facts.intensities, config, None if init is None else init.task, normalisation)
        start = None if init is None else init.learnt
        plan = make_plan(facts, config, restored.out_channels, start, normalisation)
        if isinstance(restored, Diffuse):
            restored = dataclasses.replace(restored, upscale=plan.finer)
        return restored, _with_notes(plan, facts.notes)
    task = make_task(facts, config, None if init is None else init.task)
    if init is not None and init.task.objects is not None and len(facts.values) > MANY and config.task == "semantic":
        raise ModelError(
            f"the model to start from finds objects, and the labels hold {len(facts.values)} values, each of which "
            "would become a class; choose the task instances"
        )
    plan = make_plan(facts, config, task.out_channels, None if init is None else init.learnt, normalisation)
    ndim = plan.network.ndim
    plan = _with_notes(plan, (*facts.notes, *check_labels(facts, config, ndim), *about_dropped(task, init)))
    if working is not None:
        plan = _with_notes(plan, (working.reason,) if working.reason else ())
        shrink = working.shrink if working.changes else ()
        plan = dataclasses.replace(plan, diameter=working.diameter, shrink=shrink)
    return dataclasses.replace(task, spacing=tuple(s / min(plan.spacing) for s in plan.spacing)), plan


def _with_notes(plan: TrainingPlan, notes: Sequence[str]) -> TrainingPlan:
    return dataclasses.replace(plan, reasons=(*plan.reasons, *notes))


def make_task(facts: Fingerprint, config: TrainConfig, before: Task | None = None) -> Semantic | Instances:
    """Return the task for labels with these values; where no class is named, names are those of the model before.

    Raises
    ------
    DataError
        Where names do not fit the classes, or nothing was painted on background.
    """
    if config.task == "instances":
        kinds = facts.objects.kinds if facts.objects is not None else ()
        return Instances(config.sparse, config.background, w0=config.w0, grow=GROW, nearest=True, object_classes=kinds)
    names = config.class_names or _names_of(before, facts.values)
    task = dataclasses.replace(Semantic.of(facts.values, names, config.sparse), w0=config.w0)
    if config.background is None:
        return task
    if config.background not in task.values:
        raise DataError(
            f"background is label {config.background}, which is not in the labels; they hold "
            f"{', '.join(map(str, task.values))}"
        )
    pairs = zip(task.values, task.class_names, strict=True)
    names = tuple(BACKGROUND if value == config.background else name for value, name in pairs)
    return dataclasses.replace(task, class_names=names)


def _names_of(before: Task | None, values: Sequence[int]) -> list[str]:
    """Return what somebody named of these values when a model of classes was trained."""
    if not isinstance(before, Semantic):
        return []
    each = zip(before.values, before.class_names, usual_names(before.values), strict=True)
    return [f"{v}={name}" for v, name, usual in each if v in values and name not in (usual, BACKGROUND)]


def _usual(facts: Fingerprint) -> dict[str, Any]:
    """Return what images are compared with when the model is run: least contrast, looks, share of objects."""
    shown = [each for each in facts.stacks if any(count for value, count in each.counts.items() if value)]
    least = least_contrast(each.statistics.contrast for each in shown)  # a field without objects may be noise alone
    found: dict[str, Any] = {} if least is None else {"contrast": least}
    if facts.intensities is None and (looks := appearance([each.statistics.contrast for each in shown])):
        found["appearance"] = looks
    if facts.objects is None or facts.sparse:
        return found
    return found | {"foreground": round(1 - facts.frequencies.get(0, 0.0), 3)}


def _left_out(facts: Fingerprint) -> list[str]:
    """Name the images that are left out."""
    names = list(facts.blank.values())
    if not names:
        return []
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"left out, because all of it is one value: {', '.join(names[:NAMED])}{more}"]


def _story(facts: Fingerprint, plan: TrainingPlan, task: Task) -> list[str]:
    """Describe data and plan for the user, one line each."""
    count = len(facts.stacks)
    if facts.intensities is not None:
        both = zip(("image", "target"), (facts.intensities.image, facts.intensities.target), strict=True)
        parts = [
            f"{name} {o:.4g} ± {s:.4g}" for name, found in both for o, s in zip(found.offset, found.scale, strict=True)
        ]
        line = f"{count} image{'s' * (count != 1)}; intensities: {', '.join(parts)}"
        return [*_left_out(facts), line, *plan.summary()]
    names = _names(facts, task)
    shares = ", ".join(f"{names[value]} {100 * share:.3g} %" for value, share in facts.frequencies.items())
    line = f"{count} labelled image{'s' * (count != 1)}{', 0 is unlabelled' * facts.sparse}: {shares}"
    return [*_left_out(facts), line, *plan.summary()]
