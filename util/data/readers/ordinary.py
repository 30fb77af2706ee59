"""Whatever Pillow reads: JPEG, PNG, BMP, WebP, PGM and so on; and what no other reader recognises, to say what is wrong."""

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from util.data.readers.base import Pixels, chosen_frame, from_array, reader, upright
from util.data.reading import Ends, Reading

ORIENTATION = 0x0112  # the EXIF tag


def _is_ordinary(head: bytes) -> bool:
    """Common formats by their first bytes, so that they need no extension; a deep PNG in colour has its own reader."""
    png = head[:8] == b"\x89PNG\r\n\x1a\n" and (head[24:25] != b"\x10" or head[25:26] == b"\0")
    return png or head[:3] == b"\xff\xd8\xff" or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


@reader("ordinary", _is_ordinary)
def read(path: str, reading: Reading) -> Pixels:
    """Of an animation the first picture, or the one that --frame says."""
    with Image.open(path) as image:
        if reading.frame is not None:
            image.seek(chosen_frame(getattr(image, "n_frames", 1), reading))
        return decode(image)


def decode(image: Image.Image, bit_range: Ends | None = None, inverted: bool = False) -> Pixels:
    """An open image: 8-bit RGB without transparency, or grey levels of more than 8 bits as they are."""
    if image.mode == "F" or image.mode.startswith("I"):
        pixels = from_array(np.asarray(image), bit_range, inverted=inverted)
    else:
        pixels = Pixels(TF.pil_to_tensor(image.convert("RGB")))
    orientation = orientation_of(image)  # once it is loaded: Pillow turns some formats itself, and then says so
    return pixels if orientation == 1 else pixels._replace(values=upright(pixels.values, orientation))


def orientation_of(image: Image.Image) -> int:
    """The EXIF tag Orientation; 1, upright, where there is none."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
        return orientation if orientation in range(1, 9) else 1
    except Exception:  # damaged EXIF data is no reason to refuse the pixels
        return 1
