"""TIFF: ordinary ones by Pillow; several pages, floating point and deep colour by tifffile."""

import math

import numpy as np
from PIL import Image, TiffImagePlugin

from util.data.readers.base import Pixels, chosen_frame, from_array, need, reader, upright
from util.data.readers.ordinary import decode
from util.data.reading import Ends, Reading

BITS_PER_SAMPLE, PHOTOMETRIC, DESCRIPTION, ORIENTATION, SAMPLE_FORMAT = 258, 262, 270, 274, 339  # tags
WHITE_IS_ZERO, PALETTE, CMYK = 0, 3, 5  # of PHOTOMETRIC
SIGNED = 2  # of SAMPLE_FORMAT


def _is_tiff(head: bytes) -> bool:
    """By the first four bytes; a DICOM file may begin as a TIFF, for programs that know no DICOM."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and head[128:132] != b"DICM"


@reader("TIFF", _is_tiff)
def read(path: str, reading: Reading) -> Pixels:
    """One page; of several, the one that --frame says, counted over all that are no thumbnails."""
    try:
        with Image.open(path) as image:
            assert isinstance(image, TiffImagePlugin.TiffImageFile)
            bits = max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
            several = image.n_frames > 1 or "ImageJ=" in str(image.tag_v2.get(DESCRIPTION, ""))
            turned = image.tag_v2.get(ORIENTATION, 1) != 1  # Pillow 13 tears images that lie on their side
            signed = bits <= 8 and image.tag_v2.get(SAMPLE_FORMAT, (1,))[0] == SIGNED  # Pillow takes it for unsigned
            if not (several or turned or signed) and (bits <= 8 or image.mode.startswith("I;16")):
                white_is_zero = bits > 8 and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
                return decode(image, bits_in_use(bits), white_is_zero)
    except Image.UnidentifiedImageError:
        pass  # such as 64-bit floating point
    with need("tifffile").TiffFile(path) as file:
        pages = [(series, number) for series in file.series for number in range(pages_of(series))]
        series, number = pages[chosen_frame(len(pages), reading)]
        page, array = series.keyframe, picture(series, number)
        if page.photometric == CMYK:
            raise ValueError("a page in CMYK: save it as RGB")
        if page.photometric == PALETTE and page.colormap is not None:
            array = (np.moveaxis(page.colormap, 0, -1)[array] >> 8).astype(np.uint8)
        pixels = from_array(array, bits_in_use(page.bitspersample), inverted=page.photometric == WHITE_IS_ZERO)
        orientation = page.tags[ORIENTATION].value if ORIENTATION in page.tags else 1
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
    image_axes = [series.axes.index(axis) for axis in "YXS" if axis in series.axes]
    array = np.moveaxis(array, image_axes, range(-len(image_axes), 0))
    return array.reshape(-1, *array.shape[array.ndim - len(image_axes) :])[number]
