"""Image files: list them, read their sizes from headers, and check that they decode."""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import multiprocessing
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from date.datasets.decoding import decode
from date.errors import UserError

ABSENT = -1
"""In place of the size of a file that is not there."""
THREADS = 16
"""That wait for a file system at a time; more than cores, since a network's answers are slow and not costly."""
_ROTATED = (5, 6, 7, 8)
"""EXIF orientations that turn an image by a quarter: decoders that heed them swap width and height."""
_ORIENTATION = 0x0112
_TURNED_BY_DECODER = ("JPEG", "MPO", "PNG", "WEBP")
"""Formats whose EXIF orientation the decoder heeds and Pillow's size does not; of a TIFF both do, of AVIF neither."""

Progress = Callable[[int, int], None]


def parent_folders(names: Iterable[str]) -> list[str]:
    """Return the folders that files lie in, relative to their root, sorted; "." is the root itself."""
    return sorted({name.rpartition("/")[0] or "." for name in names})


def file_sizes(folder: Path) -> dict[str, int]:
    """Return name and size in bytes of every file in a folder; nothing where there is no such folder.

    A folder is listed at once and only then are the sizes asked for, many at a time, which network file systems answer
    from the listing.

    Raises:
        UserError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}); make it readable.") from None
    if len(found) < 1000:
        return dict(_sized(found))
    parts = [found[i::THREADS] for i in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(itertools.chain.from_iterable(pool.map(_sized, parts)))


def _sized(entries: list[os.DirEntry[str]]) -> list[tuple[str, int]]:
    sizes = []
    for entry in entries:
        try:
            status = entry.stat()
        except OSError:  # a link to nothing: as if the file were not there
            continue
        if stat.S_ISREG(status.st_mode):
            sizes.append((entry.name, status.st_size))
    return sizes


class Listing:
    """The files of folders below a root, each folder listed once.

    Args:
        root: of the file names of an annotation file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = functools.cache(lambda name: file_sizes(root / name))

    def sizes(self, names: Sequence[str]) -> list[int]:
        """Return the size in bytes of each file, or `ABSENT`."""
        located = (name.rpartition("/") for name in names)
        return [self._folder(folder or ".").get(name, ABSENT) for folder, _, name in located]

    def alike(self, name: str) -> str | None:
        """Return the name of a file in the root that a name may mean: without its folders, its suffix or its case."""
        wanted = name.replace("\\", "/").rpartition("/")[2].lower()
        stems = {Path(wanted).stem, wanted}
        there = sorted(self._folder("."))
        exact = [file for file in there if file.lower() == wanted]
        return next(iter(exact or [file for file in there if Path(file).stem.lower() in stems]), None)

    def fingerprint(self, folders: Iterable[str]) -> str:
        """Return the SHA-256 of the names and sizes of all files in some folders."""
        return listing_digest(
            (f"{folder}/{name}", size) for folder in folders for name, size in self._folder(folder).items()
        )


def listing_digest(files: Iterable[tuple[str, int]]) -> str:
    """Return the SHA-256 of file names and sizes, whatever their order."""
    lines = "".join(f"{name}\0{size}\0" for name, size in sorted(files))
    return hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()


def header_sizes(paths: Sequence[Path], progress: Progress | None = None) -> list[tuple[int, int] | None]:
    """Return (width, height) of images as a decoder gives them, EXIF orientation heeded, from their headers alone.

    None stands for a file that is not an image.
    """
    sizes = []
    if progress is not None:
        progress(0, len(paths))
    with ThreadPoolExecutor(THREADS) as pool:
        for size in pool.map(_header_size, paths, chunksize=16):
            sizes.append(size)
            if progress is not None:
                progress(len(sizes), len(paths))
    return sizes


def _header_size(path: Path) -> tuple[int, int] | None:
    from PIL import Image

    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            return _upright(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _upright(image: object) -> tuple[int, int]:
    width, height = image.size  # type: ignore[attr-defined]
    if image.format not in _TURNED_BY_DECODER:  # type: ignore[attr-defined]
        return width, height
    turned = image.getexif().get(_ORIENTATION) in _ROTATED  # type: ignore[attr-defined]
    return (height, width) if turned else (width, height)


def undecodable(
    images: Sequence[tuple[Path, int, int]], workers: int | None = None, progress: Progress | None = None
) -> list[str]:
    """Decode images in several processes and return what is wrong, e.g. ``"a.jpg (320x240 and not 640x480)"``.

    Each file is decoded by OpenCV, which training uses, and by Pillow, which, unlike it, takes no truncated JPEG for a
    whole one.

    Args:
        images: path, recorded width and height.
        workers: processes; by default one per core that this process may use.
        progress: called with (images done, images in all).
    """
    workers = workers or len(os.sched_getaffinity(0))
    wrong: list[str] = []
    if progress is not None:
        progress(0, len(images))
    for done, problem in enumerate(_in_processes(images, workers), 1):
        if problem:
            wrong.append(problem)
        if progress is not None:
            progress(done, len(images))
    return wrong


def _in_processes(images: Sequence[tuple[Path, int, int]], workers: int) -> Iterator[str]:
    if workers == 1 or len(images) < 64:
        yield from map(_decoding_problem, images)
        return
    # Forking a process that has started PyTorch's threads can hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_decoding_problem, images, chunksize=32)


def _decoding_problem(image: tuple[Path, int, int]) -> str:
    """Return what is wrong with an image, "" for nothing."""
    import cv2
    from PIL import Image

    path, width, height = image
    cv2.setNumThreads(1)
    try:
        content = path.read_bytes()
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as opened:
            opened.load()
        decoded = decode(content)
    # Pillow's plugins raise what they meet in a damaged file; whatever it is, the file is reported with it.
    except Exception as error:
        return f"{path.name} ({' '.join(str(error).split()) or type(error).__name__})"
    if decoded.shape[:2] != (height, width):
        return f"{path.name} ({decoded.shape[1]}x{decoded.shape[0]} and not {width}x{height})"
    return ""
