"""What classes hold of objects: ``python benchmarks/perfect.py --data FOLDER [--only NAME]``.

The true labels of each set that lies in FOLDER are encoded as classes and decoded to objects again, with no network
between: AP at an IoU of 0.5, mean AP of 0.5 to 0.95, as models before 0.2 have it and as models have it now; and how
many objects are in several pieces, which no class holds. A set that is not there is left out.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from napari_unet.metrics.contingency import Contingency
from napari_unet.objects import objects_of
from napari_unet.objects.borders import count_pieces
from napari_unet.objects.labelling import GROW, numbered
from napari_unet.task import Instances
from napari_unet.task.instances import precisions

SETS = {
    "omnipose bacteria": "omnipose_bacteria/masks/*.tif",
    "DSB2018 fluorescence": "dsb2018/fluo/masks/*.tif",
    "DSB2018 bright field": "dsb2018/brightfield_gray/masks/*.tif",
    "DSB2018 histology": "dsb2018/histology_rgb/masks/*.tif",
    "DIC-HeLa": "ctc_dic_hela/labels_instance_derived/*.tif",
    "simulated nuclei": "ctc_fluo_n2dh_sim/labels.tif",
    "StarDist nuclei 2-D": "stardist_builtin/stardist/data/images/mask2d.tif",
    "embryos 3-D": "bbbc050/train/labels/*.tif",
    "plant nuclei 3-D": "plant_cells3d/labels/1135_mini.tif",
    "ovule 3-D": "plant_cells3d/labels/sample_ovule.tif",
    "cells3d nuclei 3-D": "napari_bio_sample/nuclei_label.tif",
    "StarDist nuclei 3-D": "stardist_builtin/stardist/data/images/mask3d.tif",
}
WAYS = {"before 0.2": Instances(w0=0), "now": Instances(w0=0, grow=GROW, nearest=True)}


def images(root: Path, name: str) -> Iterator[np.ndarray]:
    """Yield the labels of a set; time points one by one."""
    for path in sorted(root.glob(SETS[name])):
        labels = tifffile.imread(path)
        yield from labels if labels.ndim > 2 and "3-D" not in name else [labels]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    columns = " | ".join(f"{way}: AP50 | AP50-95" for way in WAYS)
    print(f"| set | objects | in pieces | {columns} |\n|{'---|' * (3 + 2 * len(WAYS))}")
    for name in (name for name in SETS if args.only in name):
        objects = pieces = 0
        tables: dict[str, list[Contingency]] = {way: [] for way in WAYS}
        for labels in images(args.data, name):
            ids = numbered(labels)
            count = int(ids.max())
            objects, pieces = objects + count, pieces + int((count_pieces(ids, count)[1:] > 1).sum())
            for way, task in WAYS.items():
                classes = task.encode(labels)[0].astype(np.uint8)
                tables[way].append(Contingency.of(ids, objects_of(classes, task.objects)))
        if objects:
            found = [precisions(tables[way]) for way in WAYS]
            cells = " | ".join(f"{each[0]:.3f} | {np.mean(each):.3f}" for each in found)
            print(f"| {name} | {objects} | {pieces} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
