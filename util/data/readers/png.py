"""PNG in colour with 16 bits a channel, of which Pillow would leave 8."""

from pathlib import Path

from PIL import Image

from util.data.readers.base import Pixels, from_array, need, reader, upright
from util.data.readers.ordinary import orientation_of
from util.data.reading import Reading


def _is_deep_colour(head: bytes) -> bool:
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:25] == b"\x10" and head[25:26] != b"\0"


@reader("PNG, 16 bits, in colour", _is_deep_colour)
def read(path: str, reading: Reading) -> Pixels:
    """The bits in use are not told: 12-bit images are often stored so."""
    pixels = from_array(need("imagecodecs").png_decode(Path(path).read_bytes()))
    with Image.open(path) as image:
        return pixels._replace(values=upright(pixels.values, orientation_of(image)))
