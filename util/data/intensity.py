"""Grey levels of more than 8 bits: one range for a whole data set, found once, so that an image's brightness depends on its
own pixels only (METHOD.md "Images")."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from util.data.readers.base import Pixels
from util.data.reading import Ends

TAIL = 0.1  # percent of an image's pixels that its ends leave out on either side
OTHERS = 5  # percent of the images that the range leaves out on either side
SAMPLE = 1 << 18  # pixels of an image that are looked at, spread over it
FAR = 0.25  # of the range: beyond it by so much, an image lies far outside


class Levels(NamedTuple):
    """What is remembered of an image that is not 8-bit.

    Attributes:
        ends: values that 0.1 % of its pixels lie below, and above; None where its own window says how it is seen.
        bit_range: the ends that the bits in use tell, or None.
    """

    ends: Ends | None
    bit_range: Ends | None = None


def levels_of(pixels: Pixels) -> Levels | None:
    """What the range of a set depends on; None of an 8-bit image, which is used as it is."""
    if pixels.values.dtype.itemsize == 1:
        return None
    if pixels.window:
        return Levels(None)
    values = pixels.values.numpy().ravel()
    values = values[:: len(values) // SAMPLE | 1]  # an odd step does not run down a column
    values = values[np.isfinite(values)]
    if not len(values):
        return Levels(None)
    low, high = np.percentile(values, (TAIL, 100 - TAIL))
    return Levels((float(low), float(high)), pixels.bit_range)


def shared_range(levels: Sequence[Levels]) -> tuple[Ends, str] | None:
    """The range of a set of images, and where it is from; None where each of them has a window of its own.

    What all files tell of the bits they use is the range. Else it is robust: of the images' own ends, the 5 % on either side
    are left out, at least one image of two or more, so that no single one decides.
    """
    counted = [each for each in levels if each.ends]
    if not counted:
        return None
    bit_ranges = {each.bit_range for each in counted}
    only = bit_ranges.pop()
    if not bit_ranges and only:
        return only, "the bits in use by the files' headers"
    ends = np.array([each.ends for each in counted])
    low = float(np.percentile(ends[:, 0], OTHERS, method="higher"))
    high = float(np.percentile(ends[:, 1], 100 - OTHERS, method="lower"))
    if low > high:  # of a few images that have nothing in common
        low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    images = "1 image" if len(counted) == 1 else f"{len(counted)} images"
    return (low, high), f"{images} of more than 8 bits, without the extremes"


def far_outside(levels: Sequence[Levels], ends: Ends) -> int:
    """How many images reach far beyond a range, by a quarter of it."""
    low, high = ends
    margin = FAR * (high - low)
    return sum(1 for each in levels if each.ends and (each.ends[0] < low - margin or each.ends[1] > high + margin))


def colours(pixels: Pixels, ends: Ends | None) -> Tensor:
    """An image as the network's input is made from it: ``[3, H, W]``, 0 (black) to 255.

    Args:
        ends: the values that become black and white, unless the image settles them.

    Returns:
        uint8 of an 8-bit image, as it is; float32 of any other, with all the levels that it has.
    """
    if pixels.values.dtype.itemsize == 1:
        return pixels.values
    known = pixels.window or ends
    if known is None:
        shared = shared_range([levels for levels in [levels_of(pixels)] if levels])
        known = shared[0] if shared else (0, 1)  # no value in it is a number
    low, high = known
    span = high - low or 1
    values = ((pixels.values.float() - low) / span).nan_to_num(0).clamp(0, 1)
    return (255 * (1 - values if pixels.inverted else values)).expand(3, -1, -1)
