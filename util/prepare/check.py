"""Is a download whole: its numbers beside the published ones, and every image read once."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from util.prepare.record import DataSet, Record
from util.system import cores
from util.system.errors import InputError


class Content(NamedTuple):
    """What an image file holds: a digest of its bytes, and its width and height in pixels."""

    digest: str
    size: tuple[int, int]


def compare(data_set: DataSet, records: list[Record]) -> list[str]:
    """A line for each official part and class whose number of images is not the published one."""
    lines = []
    for (part, label), published in data_set.published.items():
        count = sum(part in ("", record.part) and label in ("", record.label) for record in records)
        if count != published:
            where = "/".join(filter(None, (part, label)))
            lines.append(f"{where}: {count} images where {published} are published")
    return lines


def read_all(records: list[Record]) -> tuple[dict[str, Content], dict[str, str]]:
    """Read every image and mask to the last pixel.

    Returns:
        What each file holds, by its path in the download; and what is wrong with those that cannot be used, by path.
    """
    # a slice with several lesions is drawn once for each
    work = {(record.entry.path, record.draw): (record.entry, record.draw) for record in records}
    work |= {(mask.path, None): (mask, None) for record in records for mask in record.masks}
    contents, damaged = {}, {}

    def read(item) -> None:
        entry, draw = item
        try:
            data = entry.read()
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                size = image.size
                if draw:
                    draw(image)
            contents[entry.path] = Content(hashlib.blake2b(data, digest_size=16).hexdigest(), size)
        except InputError as error:
            damaged[entry.path] = str(error)
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
            damaged[entry.path] = f"{entry.path}: cannot be read ({' '.join(str(error).split())[:100]})"

    pool = ThreadPoolExecutor(min(8, cores.usable()))
    try:
        for _ in tqdm(pool.map(read, work.values()), "reading", len(work), unit="image", disable=None, leave=False):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    for record in records:
        for mask in record.masks:
            mask_image, images = contents.get(mask.path), contents.get(record.entry.path)
            if mask_image and images and mask_image.size != images.size:
                (width, height), (w, h) = mask_image.size, images.size
                damaged[mask.path] = f"{mask.path}: {width} x {height} pixels, its image has {w} x {h}"
    return contents, dict(sorted(damaged.items()))
