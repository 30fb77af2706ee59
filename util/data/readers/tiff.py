"""TIFF: ordinary ones by Pillow; several pages, floating point and deep colour by tifffile."""

import math

import numpy as np
from PIL import Image

from util.data.readers.base import Ends, Pixels, Reading, chosen_frame, from_array, need, reader, upright
from util.data.readers.ordinary import decode

BITS_PER_SAMPLE, PHOTOMETRIC, DESCRIPTION, ORIENTATION, WHITE_IS_ZERO = 258, 262, 270, 274, 0


@reader("TIFF", lambda head: head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
def read(path: str, reading: Reading) -> Pixels:
    """One page; of several, the one that --frame says, counted over all that are no thumbnails."""
    try:
        with Image.open(path) as image:
            bits = max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
            several = image.n_frames > 1 or "ImageJ=" in str(image.tag_v2.get(DESCRIPTION, ""))
            if not several and (bits <= 8 or image.mode.startswith("I;16")):
                white_is_zero = bits > 8 and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
                return decode(image, bits_in_use(bits), white_is_zero)
    except Image.UnidentifiedImageError:
        pass  # such as 64-bit floating point
    with need("tifffile").TiffFile(path) as file:
        pages = [(series, number) for series in file.series for number in range(pages_of(series))]
        series, number = pages[chosen_frame(len(pages), reading)]
        page = series.keyframe
        tags = page.tags
        orientation = tags[ORIENTATION].value if ORIENTATION in tags else 1
        pixels = from_array(
            picture(series, number), bits_in_use(page.bitspersample), inverted=page.photometric == WHITE_IS_ZERO
        )
        return pixels._replace(values=upright(pixels.values, int(orientation)))


def bits_in_use(bits: int) -> Ends | None:
    """The range that the bits of a sample tell; 16 tell nothing, as images of 12 bits are often stored so."""
    return (0, 2**bits - 1) if 8 < bits < 16 else None


def pages_of(series) -> int:
    """Number of pictures of a series of tifffile's, whose axes are named: Y, X and S (samples) are a picture's own."""
    return math.prod(size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "YXS")


def picture(series, number: int) -> np.ndarray:
    """The ``number``-th picture of a series, ``[H, W]`` or ``[H, W, samples]``."""
    array = series.asarray()
    own = [series.axes.index(axis) for axis in "YXS" if axis in series.axes]
    array = np.moveaxis(array, own, range(-len(own), 0))
    return array.reshape(-1, *array.shape[array.ndim - len(own) :])[number]
