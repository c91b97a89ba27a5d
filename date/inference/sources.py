"""The images that a user names: files, folders, or those of a COCO annotation file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from date.datasets.content import whole_ids
from date.errors import UserError, listed
from date.evaluation.reading import Defects, is_integer, read_json_or_lines

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2")
"""By which a folder's images are known; a file that is named itself may have any."""


@dataclass(frozen=True)
class Source:
    """One image."""

    path: Path
    image_id: int
    """Of the annotation file; else its place among the images, from 1 on."""
    name: str
    """As the results call it: relative to the folder that was named, or as the annotation file has it."""


@dataclass(frozen=True)
class Sources:
    """All images, in order."""

    images: list[Source]
    category_ids: dict[str, int] | None
    """Category id by name, of an annotation file; None where there is none."""


def find_images(named: Sequence[Path], folder: Path | None = None) -> Sources:
    """Return the images that a user names.

    Args:
        named: image files and folders, which are searched with all folders in them; or one COCO annotation file.
        folder: of the annotation file's images; its own by default.

    Raises:
        UserError: something named is not there, a folder without images, or an annotation file beside others.
    """
    annotated = [path for path in named if path.suffix == ".json" and not path.is_dir()]
    if annotated:
        if len(named) > 1:
            raise UserError(f"{annotated[0]} names its images itself; name it alone, or image files and folders.")
        return _annotated(annotated[0], annotated[0].parent if folder is None else folder)
    if folder is not None:
        raise UserError("--images is the folder of an annotation file's images; leave it out, or name such a file.")
    found: list[tuple[Path, str]] = []
    for path in named:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise UserError(f"{path} has no images (files that end in {', '.join(SUFFIXES)}); name another folder.")
            found += [(p, p.relative_to(path).as_posix()) for p in inside]
        elif path.exists():
            found.append((path, path.name))
        else:
            raise UserError(f"there is no {path}; name image files, folders or a COCO annotation file.")
    names = _distinct([name for _, name in found])
    return Sources(
        [Source(path, i, name) for i, ((path, _), name) in enumerate(zip(found, names, strict=True), 1)], None
    )


def _annotated(path: Path, folder: Path) -> Sources:
    data, _ = read_json_or_lines(path, "give a COCO annotation file, or image files")
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "categories")):
        raise UserError(f"{path} has no lists 'images' and 'categories'; give a COCO annotation file, or image files.")
    whole_ids(data)
    defects, images, categories = Defects(path), [], {}
    for i, record in enumerate(data["images"]):
        if isinstance(record, dict) and is_integer(record.get("id")) and isinstance(record.get("file_name"), str):
            images.append(Source(folder / record["file_name"], record["id"], record["file_name"]))
        else:
            defects.add("images without an integer 'id' and a 'file_name'", f"image {i}")
    for i, record in enumerate(data["categories"]):
        if isinstance(record, dict) and is_integer(record.get("id")) and isinstance(record.get("name"), str):
            categories[record["name"]] = record["id"]
        else:
            defects.add("categories without an integer 'id' and a 'name'", f"category {i}")
    defects.raise_if_any("correct the annotation file.")
    if not images:
        raise UserError(f"{path} lists no images; give another annotation file.")
    if not any(image.path.is_file() for image in images):
        names = listed([image.name for image in images])
        raise UserError(f"none of the images of {path} is in {folder} ({names}); name their folder by --images.")
    return Sources(images, categories)


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names with a number where one occurs again: ``a.jpg``, ``a-2.jpg``."""
    taken: set[str] = set()
    result = []
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        number, candidate = 1, name
        while candidate in taken:
            number += 1
            candidate = f"{stem}-{number}.{suffix}" if dot else f"{name}-{number}"
        taken.add(candidate)
        result.append(candidate)
    return result
