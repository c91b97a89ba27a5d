#!/bin/bash
# opencv-python-headless 4.14.0.94: cv2.imread gives None for a sound TIFF whose orientation tag turns it by a quarter
# (5 to 8), with "Internal imread issue" in its log, while cv2.imdecode reads the same bytes, turned upright.
# Seen on x86-64 Linux, Python 3.11, 2026-11-30: imread None, imdecode (32, 20, 3), Pillow (20, 32).
# Such files come from scanners and from cameras' software. Exits with 1 where this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-deps --target "$folder/packages" opencv-python-headless==4.14.0.94 pillow==13.0.0 numpy==2.4.6
cd "$folder"
PYTHONPATH="$folder/packages" python3 - 2> log <<'PYTHON'
import sys

import cv2
import numpy as np
from PIL import Image

seen = []
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (32, 20)).save("a.tiff", exif=exif)
    read = cv2.imread("a.tiff")
    decoded = cv2.imdecode(np.fromfile("a.tiff", np.uint8), cv2.IMREAD_COLOR)
    seen.append((orientation, None if read is None else read.shape, decoded.shape))
    print(f"orientation {orientation}: imread {seen[-1][1]}, imdecode {seen[-1][2]}")
sys.exit(0 if [read for _, read, _ in seen] == [(20, 32, 3)] * 4 + [None] * 4 and all(d == (32, 20, 3) for _, _, d in seen[4:]) else 1)
PYTHON
