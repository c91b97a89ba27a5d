"""One decoder for everything: upright pixels of 8 bits in the recorded size, or a sentence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from date.datasets.decoding import ImageError, check_size, decode
from date.datasets.images import header_sizes, undecodable
from date.inference.pictures import small_jpeg
from date.training.sampling import LoadRecordedImage

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8)
EIGHT_BITS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000"]
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"]
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encodable() -> list[Any]:
    found = []
    for kind in EIGHT_BITS:
        for mode in MODES:
            if (kind, mode) == ("JPEG2000", "CMYK"):  # which OpenCV does not decode
                continue
            try:
                content = encoded(Image.fromarray(PIXELS).convert(mode), kind)
            except (OSError, ValueError, KeyError):
                continue  # a format without this mode
            found.append(pytest.param(content, id=f"{kind} {mode}"))
    return found


@pytest.mark.parametrize("content", encodable())
def test_images_of_8_bits_have_the_pixels_that_mmdetection_sees(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(content)
    theirs = LoadImageFromFile()({"img_path": str(tmp_path / "image")})["img"]
    ours = LoadRecordedImage()({"img_path": str(tmp_path / "image"), "width": 32, "height": 20})
    np.testing.assert_array_equal(ours["img"], theirs)
    assert ours["img"].dtype == np.uint8 and ours["img_shape"] == ours["ori_shape"] == (20, 32)


@pytest.mark.parametrize("highest", [255, 4095, 65535], ids=["8 bits used", "12", "16"])
@pytest.mark.parametrize("ending", [".png", ".tiff", ".pgm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_deeper_images_are_refused(highest: int, ending: str, channels: int, tmp_path: Path) -> None:
    """OpenCV's plain colour decoding makes 0 of the low 8 bits."""
    pixels = (np.random.default_rng(1).random((20, 32, channels)) * highest).astype(np.uint16)
    path = tmp_path / f"deep{ending if channels == 1 or ending != '.pgm' else '.ppm'}"
    assert cv2.imwrite(str(path), pixels)
    with pytest.raises(ImageError, match="its channels are uint16; convert it to 8 bits a channel"):
        decode(path.read_bytes())
    (problem,) = undecodable([(path, 32, 20)], workers=1)
    assert problem == f"{path.name} (its channels are uint16; convert it to 8 bits a channel)"


def test_floating_point_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.hdr"
    assert cv2.imwrite(str(path), PIXELS.astype(np.float32))
    with pytest.raises(ImageError, match="its channels are float32"):
        decode(path.read_bytes())


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"", "it is empty"), (b"\x89PNG", "it can't be decoded as an image")]
)
def test_what_is_no_image(content: bytes, sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        decode(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_headers_give_the_decoded_size_and_pictures_the_same_pixels(
    kind: str, orientation: int, tmp_path: Path
) -> None:
    """Whatever the orientation; the size decides the conversion of CrowdHuman's files, the pixels what is seen."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "image"
    path.write_bytes(encoded(Image.fromarray(PIXELS), kind, exif=exif))
    decoded = decode(path.read_bytes())
    assert header_sizes([path]) == [decoded.shape[1::-1]]
    assert Image.open(io.BytesIO(small_jpeg(path))).size == decoded.shape[1::-1]
    turned = orientation >= 5 and kind != "AVIF"
    assert decoded.shape[:2] == ((32, 20) if turned else (20, 32))


@pytest.mark.parametrize("size", [(20, 32), (10, 16), (32, 21)])
def test_another_size_than_the_record_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"it has 32x20 pixels, and {size[0]}x{size[1]} in its record"):
        check_size(PIXELS, *size)
    check_size(PIXELS, 32, 20)
