"""Generated datasets in COCO format, small enough that a detector learns them on a CPU.

``scenes`` stands in for COCO, ``crowd`` for CrowdHuman. Files are the same bytes on every machine and with any number
of workers; what the pictures show is in `date.data.painting`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import struct
import uuid
import zlib
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from date.data.painting import PAINTERS, Box, Painter
from date.data.shapes import Array
from date.errors import UserError, unknown_name

GENERATOR_VERSION = 1
"""Version of what this module writes around the pictures: numbering, annotation fields, folders."""
SPLITS = ("train", "val")


class SceneSpec(BaseModel):
    """A generated dataset.

    Raises:
        UserError: there is no such kind, or no such version of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["scenes", "crowd"]
    version: int = 1
    """Of the painter. A dataset in use keeps its version, and with it its pixels."""
    image_size: int = Field(default=128, ge=32)
    """Side of the square images in px."""
    train_images: int = Field(default=1200, ge=1)
    val_images: int = Field(default=200, ge=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("kind", mode="before")
    @classmethod
    def _known_kind(cls, kind: Any) -> Any:
        if isinstance(kind, str) and kind not in PAINTERS:
            raise unknown_name("kind of generated dataset", kind, PAINTERS)
        return kind

    @model_validator(mode="after")
    def _known_version(self) -> SceneSpec:
        if self.version not in PAINTERS[self.kind]:
            valid = ", ".join(map(str, PAINTERS[self.kind]))
            raise UserError(f"generated {self.kind} have no version {self.version}; set 'version' to one of: {valid}.")
        return self

    @property
    def painter(self) -> Painter:
        """What paints this dataset's pictures."""
        return PAINTERS[self.kind][self.version]


def area_thresholds(image_size: int) -> tuple[float, float]:
    """Return the square roots of the areas, in pixels, that part small, medium and large objects of generated images.

    COCO parts at 32 and 96 px in images of about 640 px: 1/20 and 1/6.7 of the side. At 128 px that is 6.4 px, too few
    to tell a shape by, so the parts are at 1/8 and 1/4 of the side (16 and 32 px): the objects of ``scenes`` fall into
    the three ranges at about 17, 43 and 40 per cent.
    """
    return image_size / 8, image_size / 4


def scene_fingerprint(spec: SceneSpec) -> str:
    """Return the SHA-256 of all that determines a generated dataset."""
    content = {"generator": GENERATOR_VERSION, **spec.model_dump()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def generate(spec: SceneSpec, root: Path, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
    """Write a dataset: ``annotations/instances_{train,val}.json`` and images ``{train,val}/000001.png`` below ``root``.

    All is written to a hidden sibling folder that becomes ``root`` at the end, so ``root`` is complete where it exists.
    The annotations are COCO's without segmentation, in the order of painting (back to front). ``bbox_vis`` is the
    visible part's extent, ``area`` is the box's, and ``iscrowd`` marks the regions to be ignored.

    Args:
        spec: what to generate.
        root: a folder that doesn't exist.
        workers: number of processes.
        progress: called with (images done, images in all) after every image.

    Raises:
        UserError: ``root`` exists.
    """
    if root.exists():
        raise UserError(f"{root} exists; remove it to generate it anew, or name another folder.")
    partial = root.with_name(f".{root.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir(parents=True)
    try:
        _generate_into(spec, partial, workers, progress)
        os.rename(partial, root)
    except BaseException:
        shutil.rmtree(partial)
        raise


def _generate_into(spec: SceneSpec, folder: Path, workers: int, progress: Callable[[int, int], None] | None) -> None:
    for name in ("annotations", *SPLITS):
        (folder / name).mkdir()
    counts = (spec.train_images, spec.val_images)
    jobs = [(split, index) for split, count in enumerate(counts) for index in range(count)]
    annotations: tuple[list[list[dict[str, Any]]], ...] = ([], [])
    # Closing ends the workers before an error reaches the caller, who removes the folder they write to.
    with contextlib.closing(_map(functools.partial(_write_picture, spec, folder), jobs, workers)) as drawn:
        for done, ((split, _), records) in enumerate(zip(jobs, drawn, strict=True), 1):
            annotations[split].append(records)
            if progress is not None:
                progress(done, len(jobs))
    for name, per_image in zip(SPLITS, annotations, strict=True):
        text = json.dumps(_coco(spec, name, per_image), separators=(",", ":"))
        (folder / "annotations" / f"instances_{name}.json").write_text(text)


def _map(
    function: Callable[[tuple[int, int]], list[dict[str, Any]]], jobs: list[tuple[int, int]], workers: int
) -> Generator[list[dict[str, Any]], None, None]:
    """Apply a function to all jobs in order, in this process or in several."""
    if workers <= 1:
        yield from map(function, jobs)
        return
    # Forking a process that has started PyTorch's threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(function, jobs, chunksize=8)


def _write_picture(spec: SceneSpec, folder: Path, job: tuple[int, int]) -> list[dict[str, Any]]:
    """Paint and write one image; return its annotations, which still lack ids."""
    split, index = job
    rng = np.random.Generator(np.random.PCG64([spec.seed, split, index, spec.version]))
    picture = spec.painter.paint(rng, spec.image_size)
    (folder / SPLITS[split] / _file_name(index)).write_bytes(png(picture.pixels))
    records = []
    for target in picture.targets:
        x, y, width, height = xywh(target.box)
        records.append(
            {
                "image_id": index + 1,
                "category_id": target.label + 1,
                "bbox": [x, y, width, height],
                "bbox_vis": xywh(target.visible),
                "area": width * height,
                "iscrowd": int(target.ignore),
            }
        )
    return records


def _file_name(index: int) -> str:
    return f"{index + 1:06d}.png"


def _coco(spec: SceneSpec, split: str, per_image: list[list[dict[str, Any]]]) -> dict[str, Any]:
    size = spec.image_size
    description = f"Generated {spec.kind}, version {spec.version}, {split}"
    return {
        "info": {"description": description, "spec": spec.model_dump(), "fingerprint": scene_fingerprint(spec)},
        "licenses": [],
        "images": [
            {"id": i + 1, "file_name": _file_name(i), "width": size, "height": size} for i in range(len(per_image))
        ],
        "annotations": [
            {"id": number, **record} for number, record in enumerate(itertools.chain.from_iterable(per_image), 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(spec.painter.classes, 1)],
    }


def xywh(box: Box) -> list[float]:
    """Convert (x1, y1, x2, y2) to COCO's [x, y, width, height]."""
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def png(pixels: Array) -> bytes:
    """Encode an (H, W, 3) uint8 RGB image as an uncompressed PNG.

    Compressed bytes depend on the zlib build, and the sizes of files are part of a data manifest. Sensor noise hardly
    compresses anyway, and stored pixels load faster.
    """
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = [rows[i : i + 0xFFFF] for i in range(0, len(rows), 0xFFFF)]
    stored = b"".join(
        struct.pack("<BHH", i == len(chunks) - 1, len(chunk), 0xFFFF - len(chunk)) + chunk
        for i, chunk in enumerate(chunks)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows))
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
