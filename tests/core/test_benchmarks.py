"""The benchmarks run at the smallest size, and print figures; what these are is for the machine that is measured."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from napari_unet.arrays.stack import Stack
from warm import ended

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RUN = """
import runpy, sys
from pathlib import Path
del sys.argv[0]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def printed(name, *arguments):
    code, said, wrong = ended(RUN, BENCHMARKS / f"{name}.py", *arguments)
    assert code == 0, wrong
    return said


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("peers", ("--shape", 96, 96, "--rounds", 1, "--methods", "ours, bf16", "ours, fp32")),
        ("wall", ("--shape", 128, 128, "--rounds", 1)),
        ("beside", ("--shape", 16, 64, 64, "--rounds", 1, "--sleep", 1)),
        ("small", ("one", "--size", 32, "--rounds", 1)),
        ("small", ("batch", "--size", 32, "--images", 2, "--rounds", 1)),
        ("blocks", ("--blocks", 27)),
        ("objects", ("--shape", 32, 64, 64, "--only", "ours")),
    ],
)
def test_a_benchmark_prints_figures(name, arguments):
    assert len(re.findall(r"\d+\.\d+", printed(name, *arguments))) >= 1


def test_codecs_are_compared(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 9, (32, 32)).astype(np.uint8))
    lines = printed("codecs", tmp_path / "a.tif", "--axes", "yx").splitlines()
    assert all(0 < float(line.split("|")[3]) < 1.5 for line in lines[2:]) and len(lines) > 4


@pytest.mark.parametrize("more", [(), ("--samples",)], ids=["classes", "samples"])
def test_a_run_that_is_killed_ends_with_the_same_bytes(more):
    arguments = ("--shape", 64, 64, 64, "--block", 16, 32, 32, "--parts", 0.3, "--here", *more)
    assert re.fullmatch(r"here, killed at \d+%: [1-9]\d* files, 0 differ\n", printed("kills", *arguments))


def test_commands_that_are_killed_or_get_mutated_inputs_are_counted(tmp_path):
    done = {"what": "mutations", "seed": 0, "number": 0, "wrong": "", "of": "model", "codes": [3, 3]}
    (tmp_path / "log").write_text(json.dumps({**done, "seconds": 9.5, "mib": 1.0}) + "\n")
    wanted = ("--kills", 1, "--trainings", 1, "--mutations", 2, "--log", tmp_path / "log")
    lines = printed("campaign", *wanted).splitlines()
    assert [line.split(":")[0] for line in lines] == ["mutations", "predict", "train"]
    assert all(line.rstrip().endswith(" 0 ended otherwise") for line in lines)
    assert "at most 9.5 s" in lines[0]  # what an earlier part has done is counted, and not done again
    found = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["what"], line["number"]) for line in found] == [
        ("mutations", 0),
        ("mutations", 1),
        ("predict", 0),
        ("train", 0),
    ]


def test_memory_is_measured_of_a_cascade_and_of_samples(tmp_path):
    for more in (("--cascade",), ("--samples",)):
        lines = printed("memory", "--gib", 0.001, "--width", 64, "--folder", tmp_path, *more).splitlines()
        peak, before = map(float, lines[-1].split()[1:3])
        assert peak >= before > 50


def test_images_are_learnt_and_judged(tmp_path):
    folder = tmp_path / "data" / "noise2fast"
    rng = np.random.default_rng(0)
    for name, noise in (("Confocal", 0), ("Confocal_gaussianpoisson", 20)):
        (folder / name).mkdir(parents=True)
        clean = 100 + 60 * np.sin(np.mgrid[:96, :96].sum(0) / 6)
        tifffile.imwrite(folder / name / "a.tif", (clean + rng.normal(0, noise + 1e-9, clean.shape)).astype(np.float32))
    lines = printed(
        "images", "blind", "--data", tmp_path / "data", "--out", tmp_path / "out", "--minutes", 0.05
    ).splitlines()
    assert re.fullmatch(r"\| a \| \d+\.\d+ -> \d+\.\d+ \|", lines[-1])
    assert (tmp_path / "out" / "blind-a.png").is_file()


def test_samples_are_learnt_and_judged(tmp_path):
    folder = tmp_path / "data" / "bsd68_set12" / "Set12"
    folder.mkdir(parents=True)
    for number in (1, 2, 3, 7, 11):
        clean = 120 + 60 * np.sin(np.mgrid[:32, :32].sum(0) / (4 + number))
        Image.fromarray(clean.astype(np.uint8)).save(folder / f"{number:02d}.png")
    given = ("denoise", "--data", tmp_path / "data", "--out", tmp_path / "out", "--updates", 2, "--steps", 2)
    lines = printed("diffusion", *given).splitlines()
    assert [re.fullmatch(r"\| [^|]+ \| -?\d+\.\d+ \|", line) is not None for line in lines[-6:]] == [True] * 6
    assert (tmp_path / "out" / "denoise-03.png").is_file()


def test_turned_labels_lie_beside_what_they_mark_as_they_were_drawn(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    models = importlib.import_module("models")
    y, x = np.mgrid[:48, :48]
    aside = np.array(models.DRAWN_ASIDE)

    def spot(centre):
        return np.rint(250 * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 18)).astype(np.uint8)

    image, labels = (Stack(data=spot(np.array((20.0, 30.0)) + by), axes="yx") for by in (0, aside))
    ways = [(seen.data, drawn.data) for seen, drawn in models.every_way(image, labels)]
    places = [[ndimage.center_of_mass(each) for each in way] for way in ways]
    assert len({tuple(np.rint(drawn)) for _, drawn in places}) == 8
    for seen, drawn in places:
        assert np.allclose(np.subtract(drawn, seen), aside, atol=0.05)


def test_images_that_are_made_are_learnt_from_beside_real_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    diffusion = importlib.import_module("diffusion")
    for name, value in {"SIDE": 64, "FEW": 2, "GRID": (1, 1), "SEEDS": (0,), "LEAST": 3}.items():
        monkeypatch.setattr(diffusion, name, value)
    for kind in ("images", "masks"):
        (tmp_path / "data" / "dsb2018" / "fluo" / kind).mkdir(parents=True)
    places = np.mgrid[8:64:16, 8:64:16].reshape(2, -1).T
    for number in range(6):
        labels = np.zeros((64, 64), np.uint16)
        for value, (y, x) in enumerate(places, 1):
            labels[(np.mgrid[:64, :64][0] - y) ** 2 + (np.mgrid[:64, :64][1] - x) ** 2 < 20 + 3 * number] = value
        image = np.random.default_rng(number).poisson(20 + 80 * (labels > 0)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "data" / "dsb2018" / "fluo" / "images" / f"{number}.tif", image)
        tifffile.imwrite(tmp_path / "data" / "dsb2018" / "fluo" / "masks" / f"{number}.tif", labels)
    tried = []

    class Watched(diffusion.Bench):
        def learn(self, name, pairs, validation=(), **settings):
            tried.append({image.shape for image, _ in validation})
            assert not any(image.name.startswith("made") for image, _ in validation)
            return super().learn(name, pairs, validation, **settings)

    bench = Watched(tmp_path / "data", tmp_path / "out", 1.0)
    bench.out.mkdir()
    diffusion.synthetic(bench, 2, {"steps": 2})
    assert tried == [{(13, 64)}] * 4  # a fifth of each real one, which is not learnt from
    assert re.findall(r"\| ([^|]+) \| \d\.\d+ \|", capsys.readouterr().out) == ["2", "2 and 2 made", "3"]
    assert {path.name for path in bench.out.glob("*.png")} == {"made-0-0.png", "made-0-1.png"}
