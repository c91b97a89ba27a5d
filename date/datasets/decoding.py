"""The one decoder of images: training, evaluation, pictures and ``data verify --deep`` all see its pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from date.errors import UserError


class ImageError(UserError):
    """An image can't be used; the message says why, without its name."""


def decode(content: bytes) -> NDArray[np.uint8]:
    """Return an image file's pixels, (H, W, 3) in BGR, its EXIF orientation applied.

    Grey, palette, CMYK and transparent images become three channels of 8 bits. Deeper ones are refused: OpenCV would
    drop their low bits, so that a file of 16 bits that uses 8 or 12 of them came out black or almost so.

    Raises:
        ImageError: the content is not an image, or has not 8 bits a channel.
    """
    import cv2

    if not content:
        raise ImageError("it is empty")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:  # e.g. more pixels than OpenCV takes
        raise ImageError(f"it can't be decoded ({' '.join(str(error).split())})") from None
    if image is None:
        raise ImageError("it can't be decoded as an image")
    if image.dtype != np.uint8:
        raise ImageError(f"its channels are {image.dtype}; convert it to 8 bits a channel")
    return image  # type: ignore[return-value]


def check_size(image: NDArray[np.uint8], width: float, height: float) -> None:
    """Compare a decoded image with the annotation file's record of it.

    Raises:
        ImageError: the sizes in pixels differ.
    """
    if image.shape[:2] != (height, width):
        raise ImageError(
            f"it has {image.shape[1]}x{image.shape[0]} pixels, and {width:g}x{height:g} in its record, so that boxes "
            f"would lie beside their objects"
        )
