"""PNG of 16 bits a channel, grey or colour, which Pillow would reduce to 8 bits where it is colour."""

from torchvision.io import ImageReadMode, decode_png, read_file

from util.data.readers.base import Pixels, Reading, from_array, reader


@reader("PNG, 16 bits", lambda head: head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:25] == b"\x10")
def read(path: str, reading: Reading) -> Pixels:
    """The bits in use are not told: 12-bit images are often stored so."""
    image = decode_png(read_file(path), ImageReadMode.UNCHANGED, apply_exif_orientation=True)
    return from_array(image.permute(1, 2, 0).numpy())
