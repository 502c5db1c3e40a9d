"""Quality against minutes of training, beside peers: ``python benchmarks/training.py --data FOLDER --out FOLDER``.

Twenty fluorescence images of DSB2018 are learnt from, 52 others judged: AP at IoU 0.5 over all their objects. Every
method learns inside, border and background of objects from the same images for the same minutes, in a process of its
own, one after the other; of the peers only the steps are timed, of ours everything. The peers (``pip install monai
nnunetv2`` beside this package) are MONAI's BasicUNet with DiceCE, Adam and flips, rotations and intensities drawn at
random; and the recipe of nnU-Net: its network with deep supervision, its loss, its augmentation, SGD with its decay.
FOLDER holds the images.

``--rate STEPS`` times some steps of each instead, drawing of patches included: samples of 256 x 256 a processor second,
and how large the networks are: parameters, and multiplications of one sample forward.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_unet import PredictConfig, TrainConfig, predict, train, wait
from napari_unet.arrays.stack import Stack
from napari_unet.evaluation.evaluate import evaluate
from napari_unet.objects import ObjectConfig, objects_of
from napari_unet.task import Instances
from napari_unet.training.fit import begin

PATCH, LEARNT = 256, 20
BATCH = {"monai": 8, "nnunet": 12}
Predict = Callable[[np.ndarray], np.ndarray]
Images = list[tuple[np.ndarray, np.ndarray]]
Step = Callable[[float], object]  # one step at a part of the run, of which nnU-Net's rate follows
Scale = Callable[[np.ndarray], np.ndarray]


def images(folder: Path) -> tuple[Images, Images]:
    """Return what is learnt from and what is judged: images and ids of their objects."""
    files = sorted((folder / "images").glob("*.tif"))
    every = [(tifffile.imread(path), tifffile.imread(folder / "masks" / path.name).astype(np.int32)) for path in files]
    learnt = [pair for number, pair in enumerate(every) if number % 8]
    return learnt[:: len(learnt) // LEARNT][:LEARNT], every[::8]


def crops(learnt: Images, scale: Callable[[np.ndarray], np.ndarray], seed: int) -> Iterator[tuple[Any, Any]]:
    """Yield crops drawn at random: (1, Y, X) float32, and (1, Y, X) classes."""
    rng, task = np.random.default_rng(seed), Instances()
    ready = []
    for image, ids in learnt:
        more = [(0, max(0, PATCH - n)) for n in image.shape]
        classes = task.encode(ids)
        classes = classes[0] if classes.ndim > 2 else classes
        ready.append((np.pad(scale(image), more, mode="reflect"), np.pad(classes, more, mode="reflect")))
    while True:
        image, classes = ready[rng.integers(len(ready))]
        at = [int(rng.integers(0, n - PATCH + 1)) for n in image.shape]
        box = tuple(slice(a, a + PATCH) for a in at)
        yield (
            torch.from_numpy(np.ascontiguousarray(image[box], np.float32))[None],
            torch.from_numpy(np.ascontiguousarray(classes[box], np.int64))[None],
        )


def objects(net: Callable[[torch.Tensor], torch.Tensor], image: np.ndarray, multiple: int) -> np.ndarray:
    """Run a network on a whole image, and make objects of its classes."""
    more = [(0, -n % multiple) for n in image.shape]
    data = torch.from_numpy(np.pad(image, more, mode="reflect").astype(np.float32))[None, None]
    with torch.inference_mode():
        classes = net(data)[0].argmax(0).numpy().astype(np.uint8)
    return objects_of(classes[: image.shape[0], : image.shape[1]], ObjectConfig())


def ours(learnt: Images, minutes: float, out: Path) -> tuple[Predict, int]:
    pairs = [(Stack(image, "yx", name=f"{i}"), Stack(ids, "yx")) for i, (image, ids) in enumerate(learnt)]
    model = wait(train(pairs, out / "ours.model", TrainConfig(task="instances", minutes=minutes)))

    def found(image: np.ndarray) -> np.ndarray:
        config = PredictConfig(overwrite=True, overview=False)
        return np.asarray(wait(predict(Stack(image, "yx"), model, out / "ours.ome.zarr", config)).data[...])

    return found, int(model.record["steps"])


def monai(learnt: Images) -> tuple[torch.nn.Module, Scale, Step]:
    from monai.losses import DiceCELoss
    from monai.networks.nets import BasicUNet
    from monai.transforms import (
        Compose,
        NormalizeIntensityd,
        RandFlipd,
        RandGaussianNoised,
        RandRotate90d,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )

    def scale(image: np.ndarray) -> np.ndarray:
        return np.asarray(NormalizeIntensityd("image")({"image": image.astype(np.float32)})["image"])

    both = ("image", "label")
    augment = Compose(
        [
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandFlipd(both, prob=0.5, spatial_axis=1),
            RandRotate90d(both, prob=0.5),
            RandScaleIntensityd("image", factors=0.25, prob=0.5),
            RandShiftIntensityd("image", offsets=0.25, prob=0.5),
            RandGaussianNoised("image", prob=0.2, std=0.1),
        ]
    )
    net = BasicUNet(spatial_dims=2, in_channels=1, out_channels=3)
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    source = crops(learnt, scale, 0)

    def step(_: float) -> None:
        batch = [augment(dict(zip(both, next(source), strict=True))) for _ in range(BATCH["monai"])]
        image, label = (torch.stack([torch.as_tensor(each[name]) for each in batch]) for name in both)
        optimiser.zero_grad()
        loss(net(image), label).backward()
        optimiser.step()

    return net, scale, step


def nnunet(learnt: Images) -> tuple[torch.nn.Module, Scale, Step]:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    def scale(image: np.ndarray) -> np.ndarray:
        return (image.astype(np.float32) - image.mean()) / max(float(image.std()), 1e-8)

    stages = 7
    net = PlainConvUNet(
        input_channels=1,
        n_stages=stages,
        features_per_stage=[min(512, 32 * 2**i) for i in range(stages)],
        conv_op=torch.nn.Conv2d,
        kernel_sizes=3,
        strides=[1] + [2] * (stages - 1),
        n_conv_per_stage=2,
        num_classes=3,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    outputs = stages - 1
    scales = [[0.5**i] * 2 for i in range(outputs)]
    augment = nnUNetTrainer.get_training_transforms((PATCH, PATCH), (-np.pi, np.pi), scales, (0, 1), False)
    weights = np.array([0.5**i for i in range(outputs - 1)] + [0.0])
    loss = DeepSupervisionWrapper(
        DC_and_CE_loss(
            {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False},
            {},
            dice_class=MemoryEfficientSoftDiceLoss,
        ),
        list(weights / weights.sum()),
    )
    optimiser = torch.optim.SGD(net.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    source = crops(learnt, scale, 0)

    def step(gone: float) -> None:
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - gone) ** 0.9
        batch = []
        for _ in range(BATCH["nnunet"]):
            image, label = next(source)
            batch.append(augment(image=image, segmentation=label.to(torch.int16)))
        image = torch.stack([each["image"] for each in batch])
        labels = [torch.stack([each["segmentation"][i] for each in batch]) for i in range(outputs)]
        optimiser.zero_grad()
        loss(net(image), labels).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 12)
        optimiser.step()

    return net, scale, step


PEERS = {"monai": (monai, 16), "nnunet": (nnunet, 64)}
METHODS = ("ours", *PEERS)


def learn(method: str, learnt: Images, minutes: float, out: Path) -> tuple[Predict, int]:
    """Train one method for some minutes."""
    if method == "ours":
        return ours(learnt, minutes, out)
    make, multiple = PEERS[method]
    (net, scale, step), steps, start = make(learnt), 0, time.monotonic()
    while (gone := (time.monotonic() - start) / (60 * minutes)) < 1:
        step(gone)
        steps += 1
    net.eval()
    if method == "nnunet":
        net.decoder.deep_supervision = False
    return lambda image: objects(net, scale(image), multiple), steps


def rate(method: str, steps: int, data: Path, out: Path) -> None:
    """Time some steps of one method after two first ones, and print what came as JSON."""
    learnt, _ = images(data)
    if method == "ours":
        pairs = [(Stack(image, "yx", name=f"{i}"), Stack(ids, "yx")) for i, (image, ids) in enumerate(learnt)]
        config = TrainConfig(task="instances", steps=100_000, patch=(PATCH, PATCH))
        training = wait(begin(pairs, out / "rate.model", config))
        net, batch = training.learner.net, training.plan.batch
        work = (event for event in training.events() if event.stage == "train")
    else:
        (net, _, step), batch = PEERS[method][0](learnt), BATCH[method]
        work = (step(0.5) for _ in range(steps + 2))
    next(work), next(work)
    began = time.process_time()
    for _ in range(steps):
        next(work)
    seconds = (time.process_time() - began) / steps / batch
    with contextlib.closing(work):
        pass
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net.eval()(torch.zeros(1, 1, PATCH, PATCH))
    size = sum(weight.numel() for weight in net.parameters())
    print(json.dumps({"rate": 1 / seconds, "batch": batch, "size": size, "work": counter.get_total_flops() / 2}))


def run(method: str, minutes: float, data: Path, out: Path) -> None:
    """Train one method, judge it, and print what came as JSON."""
    torch.manual_seed(0)
    learnt, judged = images(data)
    start = time.monotonic()
    found, steps = learn(method, learnt, minutes, out)
    seconds = time.monotonic() - start
    right = every = 0.0
    for image, ids in judged:
        scores = evaluate(found(image), ids, "instances", axes="yx").scores
        right += scores["precision_50"] * scores["n_result"]
        every += scores["n_result"] + scores["n_truth"]
    print(json.dumps({"ap": right / (every - right), "steps": steps, "seconds": seconds}))


def rates(args: argparse.Namespace) -> None:
    """Time the steps of each method in a process of its own."""
    print("| method | samples a processor second | batch | million parameters | GMAC a sample |")
    for method in args.methods:
        command = [sys.executable, __file__, "--run", method, "0", "--rate", str(args.rate), "--data", str(args.data)]
        with tempfile.TemporaryDirectory() as folder:
            said = subprocess.run([*command, "--out", folder], check=True, capture_output=True, text=True).stdout
        found = json.loads(said.strip().splitlines()[-1])
        print(
            f"| {method} | {found['rate']:.2f} | {found['batch']} | {found['size'] / 1e6:.2f} | "
            f"{found['work'] / 1e9:.1f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 3.0, 6.0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--rate", type=int, help="time so many steps of each")
    parser.add_argument("--run", nargs=2, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run and args.rate:
        rate(args.run[0], args.rate, args.data, args.out)
        return
    if args.run:
        run(args.run[0], float(args.run[1]), args.data, args.out)
        return
    if args.rate:
        rates(args)
        return
    print("| minutes |", " | ".join(f"{name}: AP, steps" for name in args.methods), "|")
    for minutes in args.minutes:
        cells = []
        for method in args.methods:
            folder = args.out / f"{method}-{minutes:g}"
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, __file__, "--run", method, str(minutes), "--data", str(args.data)]
            printed = subprocess.run(
                [*command, "--out", str(folder)], check=True, capture_output=True, text=True
            ).stdout
            found = json.loads(printed.strip().splitlines()[-1])
            cells.append(f"{found['ap']:.3f}, {found['steps']}")
        print(f"| {minutes:g} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
