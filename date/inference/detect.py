"""Detect on a user's images as the evaluation does on the validation images."""

from __future__ import annotations

import json
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from date.datasets.decoding import decode
from date.errors import UserError
from date.files import replace_text
from date.inference.drawing import draw
from date.inference.sources import Source, Sources
from date.progress import progress_lines

DRAWN_FROM = 0.3
"""Score of a drawn box at least, unless the user names another."""


class Detects(Protocol):
    """A network that detects: a trained one, or an exported one."""

    def detect(self, samples: Sequence[Any]) -> list[NDArray[np.float64]]:
        """Return each image's rows of `date.evaluation.coco.DETECTION_COLUMNS`, best first."""


@dataclass(frozen=True)
class Job:
    """The preparation and batching of images for a network."""

    pipeline: list[dict[str, Any]]
    """MMDetection's steps from a decoded image to the network's input."""
    batch_size: int
    same_size: bool
    """Show images of different sizes in batches of their own, so that an image's neighbours do not matter; else as
    the evaluation does, which pads a batch to its largest image."""
    readers: int = 1
    """Threads that read and decode images."""


class Found(NamedTuple):
    """The detections on one image."""

    source: Source
    rows: NDArray[np.float64]
    """(K, 7) of `date.evaluation.coco.DETECTION_COLUMNS`, best first."""


@dataclass
class Outcome:
    """The detections on all images, and the images that could not be read."""

    found: list[Found] = field(default_factory=list)
    unreadable: list[tuple[Source, str]] = field(default_factory=list)
    """Images that were skipped, and why."""


class _Failure(NamedTuple):
    reason: str


def detect(
    detector: Detects, job: Job, images: Sequence[Source], look: Callable[[Found], None] = lambda found: None
) -> Outcome:
    """Detect on images, with a progress bar on standard error.

    Args:
        detector: that detects.
        job: how.
        images: in the order of the results.
        look: is shown every image's detections as soon as they are there.
    """
    outcome = Outcome()
    with _progress(len(images)) as advance:
        for batch in _batches(_prepared(images, job), job):
            failures = [(source, sample.reason) for source, sample in batch if isinstance(sample, _Failure)]
            outcome.unreadable += failures
            sound = [(source, sample) for source, sample in batch if not isinstance(sample, _Failure)]
            rows = detector.detect([sample for _, sample in sound]) if sound else []
            for (source, _), found in zip(sound, rows, strict=True):
                outcome.found.append(Found(source, found))
                look(outcome.found[-1])
            advance(len(batch))
    return outcome


class Pipeline:
    """MMDetection's steps from a decoded image to the network's input."""

    def __init__(self, steps: Sequence[dict[str, Any]]) -> None:
        init_default_scope("mmdet")
        self._compose = Compose(steps)

    def __call__(self, image: NDArray[np.uint8], path: str, image_id: int) -> Any:
        """Return MMDetection's sample of an image (H, W, 3), BGR."""
        shape = image.shape[:2]
        return self._compose(dict(img=image, img_path=path, img_id=image_id, img_shape=shape, ori_shape=shape))


def _prepared(images: Sequence[Source], job: Job) -> Iterator[tuple[Source, Any]]:
    """Yield every image with its sample, or a `_Failure`, read ahead by some threads."""
    pipeline = Pipeline(job.pipeline)

    def load(source: Source) -> Any:
        try:
            sample = pipeline(decode(source.path.read_bytes()), str(source.path), source.image_id)
        except Exception as error:  # whatever a decoder or a transform raises; the image is named at the end
            return _Failure(" ".join(str(error).split()) or type(error).__name__)
        return sample if sample is not None else _Failure("the pipeline leaves it out")

    with ThreadPoolExecutor(job.readers) as pool:
        ahead: deque[tuple[Source, Future[Any]]] = deque()
        for source in images:
            ahead.append((source, pool.submit(load, source)))
            if len(ahead) > 2 * job.batch_size:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()


def _batches(samples: Iterable[tuple[Source, Any]], job: Job) -> Iterator[list[tuple[Source, Any]]]:
    """Divide images into batches, as `Job` says; an image that can't be read takes no part in the division."""
    batch: list[tuple[Source, Any]] = []
    shape = None
    for i, (source, sample) in enumerate(samples):
        here = shape if isinstance(sample, _Failure) else tuple(sample["inputs"].shape)
        full = len(batch) == job.batch_size if job.same_size else i % job.batch_size == 0
        if batch and (full or (job.same_size and shape not in (None, here))):
            yield batch
            batch = []
        batch.append((source, sample))
        shape = here
    if batch:
        yield batch


class _progress:
    """Show how many images are done: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.bar: Progress | None = None

    def __enter__(self) -> Callable[[int], None]:
        if sys.stderr.isatty():
            columns = (TextColumn("detecting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task("detecting", total=self.total)
            self.bar.start()
        self.line = progress_lines("detecting")
        return self.advance

    def advance(self, images: int) -> None:
        self.done += images
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)
        else:
            self.line(self.done, self.total)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


@dataclass(frozen=True)
class Named:
    """The classes of a network and the category ids that results call them by."""

    classes: list[str]
    ids: list[int]

    @property
    def name_of(self) -> dict[int, str]:
        """Class by category id."""
        return dict(zip(self.ids, self.classes, strict=True))


def categories(classes: list[str], known: list[int] | None, sources: Sources) -> tuple[Named, list[str]]:
    """Return the category ids that the results use, and a note about them.

    Args:
        classes: of the network.
        known: category ids of the annotations that the network was judged by, where they are known.
        sources: the images; an annotation file's ids come before all others.

    Raises:
        UserError: the annotation file lacks classes of the network.
    """
    if sources.category_ids is not None:
        if missing := [name for name in classes if name not in sources.category_ids]:
            raise UserError(
                f"the annotation file has no category {', '.join(map(repr, missing))}, which the network detects; name "
                "a file of the same dataset, or image files and folders."
            )
        return Named(classes, [sources.category_ids[name] for name in classes]), []
    if known is not None:
        return Named(classes, known), []
    note = (
        f"category ids are 1 to {len(classes)} in the order of the network's classes: the annotations that it was "
        "trained with are not here."
    )
    return Named(classes, list(range(1, len(classes) + 1))), [note]


def write_results(path: Path, found: Sequence[Found], named: Named, annotated: bool, score: float) -> int:
    """Write detections in COCO's results format and return their number.

    Args:
        path: of the JSON file.
        found: by image.
        named: of the categories.
        annotated: image ids are an annotation file's; else each detection also has its image's ``file_name`` and its
            ``category``.
        score: detections below it are left out.
    """
    entries = []
    for source, rows in found:
        extra = {} if annotated else {"file_name": source.name}
        for image_id, x, y, width, height, value, category in rows[rows[:, 5] >= score].tolist():
            entry = {"image_id": int(image_id), "category_id": int(category), "bbox": [x, y, width, height]}
            entry |= {"score": value, **extra}
            entries.append(entry if annotated else entry | {"category": named.name_of[int(category)]})
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    replace_text(path, f"[\n{lines}\n]\n" if entries else "[]\n")
    return len(entries)


class Painter:
    """Writes every image with its detections as ``<folder>/<name>.png``.

    Args:
        folder: it is made.
        named: classes and their category ids.
        score: of a drawn box at least.
    """

    def __init__(self, folder: Path, named: Named, score: float) -> None:
        self.folder, self.score = folder, score
        self.classes = named.classes
        self.label_of = {category: label for label, category in enumerate(named.ids)}
        self.drawn: Counter[str] = Counter()
        self._written: set[Path] = set()

    def __call__(self, found: Found) -> None:
        """Draw one image."""
        rows = found.rows[found.rows[:, 5] >= self.score]
        pixels = decode(found.source.path.read_bytes())[..., ::-1]
        boxes = np.concatenate([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]], axis=1)
        labels = [self.label_of[int(category)] for category in rows[:, 6]]
        self.drawn.update(self.classes[label] for label in labels)
        path = self.folder / Path(found.source.name).with_suffix(".png")
        if path in self._written:  # a.jpg and a.png
            path = path.with_name(f"{Path(found.source.name).name}.png")
        self._written.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(np.ascontiguousarray(pixels), boxes, rows[:, 5], labels, self.classes).save(path)
