"""A small made-up data set, so that everything can be tried and tested without data: brain-MRI-like phantoms.

    python -m util.phantom DIR --train 400 --val 200 --size 64

writes ``DIR/{train,val}/{none,ring,skull,base}/NAME.png`` and the lesion masks ``DIR/masks/{train,val}/CLASS/NAME.png``;
with ``--test N`` a test set too. With ``--segmentation`` it writes ``DIR/{train,val}/images/NAME.png`` and
``DIR/{train,val}/masks/0/NAME.png``. The classes differ in the lesion and in nothing else:

- ``ring``: bright rim, dark core, inside the tissue;
- ``skull``: solid, broad against the inside of the skull;
- ``base``: small, at the base of the brain on the midline;
- ``none``: no lesion.

A phantom's head is drawn from one random stream and its lesion from another; neither stream knows the class. All three
lesions are drawn for every phantom and only the one of its class is painted in.
"""

import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder, called by its path

from util.options.parser import SEED, PlainParser, number
from util.system.errors import InputError, run_script

CLASSES = ("base", "none", "ring", "skull")


class Head(NamedTuple):
    """A head before noise: what lesions are painted on, and the frame to place them in."""

    image: np.ndarray  # [S, S] brightness, about 0 to 1
    brain: np.ndarray  # [S, S] bool, inside the skull
    depth: np.ndarray  # [S, S], 0 at the brain's centre, 1 at its edge
    angle: np.ndarray  # [S, S], direction from the brain's centre, radians, in the head's own frame (0: right, pi/2: down)
    radius: float  # mean radius of the brain in pixels


def smooth_noise(rng: np.random.Generator, size: int, cells: float) -> np.ndarray:
    """Noise ``[size, size]`` of mean 0 and deviation 1 whose structures are about ``size / cells`` pixels wide."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None]) * size
    spectrum = np.fft.fft2(rng.standard_normal((size, size))) * np.exp(-((frequency / cells) ** 2))
    noise = np.fft.ifft2(spectrum).real
    return (noise - noise.mean()) / noise.std()


def soft(signed_distance: np.ndarray) -> np.ndarray:
    """An edge: 1 where the distance in pixels is well above zero, 0 well below, one pixel wide."""
    return 1 / (1 + np.exp(-np.clip(2 * signed_distance, -30, 30)))


def draw_head(rng: np.random.Generator, size: int) -> Head:
    """A head of random shape, pose, view, tissue and contrast."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    y, x = y - rng.normal(0, 0.02), x - rng.normal(0, 0.02)
    tilt = rng.normal(0, 0.12)
    x, y = x * math.cos(tilt) + y * math.sin(tilt), y * math.cos(tilt) - x * math.sin(tilt)
    angle = np.arctan2(y, x)
    view = rng.choice(["axial", "coronal", "sagittal"])
    width, height = {"axial": (0.33, 0.40), "coronal": (0.35, 0.36), "sagittal": (0.40, 0.35)}[view]
    width, height = width * rng.uniform(0.9, 1.1), height * rng.uniform(0.9, 1.1)
    outline = 1 / np.hypot(np.cos(angle) / width, np.sin(angle) / height)
    for order in range(2, 6):
        outline = outline * (1 + rng.normal(0, 0.025 / order) * np.cos(order * angle + rng.uniform(0, 2 * math.pi)))
    distance = np.hypot(x, y)
    bone = rng.uniform(0.03, 0.05)
    brain_edge = outline - bone
    depth = distance / brain_edge

    tissue = rng.uniform(0.35, 0.55)
    grey_white = rng.uniform(0.05, 0.14) * rng.choice([-1, 1])
    folds = smooth_noise(rng, size, rng.uniform(8, 14))
    cortex = soft((depth - 0.78 + 0.06 * folds) * size * 0.3)
    image = tissue + grey_white * (cortex - 0.5) + 0.025 * folds + 0.02 * smooth_noise(rng, size, 24)
    fluid = rng.uniform(0.08, 0.2) if rng.random() < 0.6 else rng.uniform(0.75, 0.9)  # dark as in T1, bright as in T2
    ventricle = draw_ventricles(rng, view, x, y, size)
    image = image * (1 - ventricle) + fluid * ventricle
    if view != "sagittal":  # the fissure between the halves
        fissure = soft((rng.uniform(0.004, 0.010) - np.abs(x + 0.01 * folds)) * size) * (depth > rng.uniform(0.45, 0.7))
        image = image * (1 - 0.6 * fissure) + fluid * 0.6 * fissure
    else:  # a cerebellum-like lobe of finer texture
        lobe = soft((0.10 - np.hypot(x - 0.16, (y - 0.17) * 1.3)) * size)
        image = image + lobe * (0.05 * smooth_noise(rng, size, 30) - rng.uniform(-0.05, 0.1))
    brain = soft((brain_edge - distance) * size)
    skull = soft((outline - distance) * size) - brain
    scalp = soft((outline + rng.uniform(0.02, 0.04) - distance) * size) - brain - skull
    image = image * brain + rng.uniform(0.02, 0.15) * skull + rng.uniform(0.5, 0.95) * scalp
    return Head(image, distance < brain_edge, depth, angle, float(brain_edge.mean() * size))


def draw_ventricles(rng: np.random.Generator, view: str, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Opacity ``[S, S]`` of the fluid-filled ventricles, two of them or, from the side, one."""
    reach, thickness, lean = rng.uniform(0.07, 0.12), rng.uniform(0.018, 0.035), rng.uniform(0.2, 0.6)
    opacity = np.zeros_like(x)
    for side in (-1, 1) if view != "sagittal" else (0,):
        across = x - side * (0.035 + lean * 0.12 * np.abs(y))
        along = y + 0.03
        if view == "sagittal":
            across, along = y + 0.02 - 1.5 * x**2, x
        opacity = np.maximum(opacity, soft((1 - np.hypot(across / thickness, along / reach)) * thickness * size))
    return opacity


def draw_lesion(kind: str, rng: np.random.Generator, head: Head, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Opacity ``[S, S]`` and brightness ``[S, S]`` of one lesion in its place."""
    direction = rng.uniform(0, 2 * math.pi)
    radius = {"ring": rng.uniform(0.20, 0.34), "skull": rng.uniform(0.22, 0.36), "base": rng.uniform(0.13, 0.19)}[kind]
    if kind == "ring":
        depth = rng.uniform(0.25, 0.95 - radius)
    elif kind == "skull":
        depth = 1 - 0.35 * radius
    else:
        direction, depth = math.pi / 2 + rng.normal(0, 0.06), 0.92 - radius
    # offsets from the lesion's centre in units of the brain's radius
    u = head.depth * np.cos(head.angle) - depth * math.cos(direction)
    v = head.depth * np.sin(head.angle) - depth * math.sin(direction)
    shape = 1 + 0.12 * smooth_noise(rng, size, 5)
    distance = np.hypot(u, v * rng.uniform(0.85, 1.15)) / shape
    opacity = soft((radius - distance) * head.radius) * head.brain
    bright = rng.uniform(0.75, 0.95)
    if kind != "ring":
        return opacity, np.full_like(opacity, bright) + 0.03 * smooth_noise(rng, size, 12)
    core = soft((radius * rng.uniform(0.6, 0.75) - distance) * head.radius)
    return opacity, bright * (1 - core) + rng.uniform(0.1, 0.25) * core


def draw_phantom(kind: str, seed: tuple[int, ...], size: int, lesion: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """One phantom.

    Args:
        kind: its class, one of :data:`CLASSES`.
        seed: fixes everything about it; the same seed with another class gives the same head.
        size: side in pixels.
        lesion: paint the lesion; without it the class leaves no trace.

    Returns:
        The image ``[size, size]`` uint8 and the lesion's mask ``[size, size]`` bool.
    """
    head_rng, lesion_rng, camera_rng = (np.random.default_rng([*seed, stream]) for stream in range(3))
    head = draw_head(head_rng, size)
    lesions = {name: draw_lesion(name, lesion_rng, head, size) for name in CLASSES if name != "none"}
    image, mask = head.image, np.zeros((size, size), dtype=bool)
    if kind != "none" and lesion:
        opacity, brightness = lesions[kind]
        image = image * (1 - opacity) + brightness * opacity
        mask = opacity > 0.5
    gain, gamma = camera_rng.uniform(0.7, 1.1), camera_rng.uniform(0.8, 1.25)
    shading = 1 + 0.08 * smooth_noise(camera_rng, size, 1.5)
    image = gain * np.clip(image, 0, None) ** gamma * shading
    noise = camera_rng.normal(0, camera_rng.uniform(0.01, 0.05), (2, size, size))
    image = np.hypot(image + noise[0], noise[1])  # Rician, as in magnitude images
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8), mask


def write_phantoms(
    folder: Path, train: int, val: int, size: int, seed: int, segmentation: bool = False, test: int = 0
) -> None:
    """Write ``train``, ``val`` and ``test`` phantoms, classes equally many, with their lesion masks.

    As an ImageFolder with ``masks/`` beside it, or as ``segmentation/`` wants them: those with a lesion, without classes.
    """
    kinds = [kind for kind in CLASSES if kind != "none"] if segmentation else CLASSES
    for place, (split, count) in enumerate((("train", train), ("val", val), ("test", test))):
        for index in range(count):
            kind = kinds[index % len(kinds)]
            image, mask = draw_phantom(kind, (seed, place, index), size)
            images, masks = folder / split / kind, folder / "masks" / split / kind
            if segmentation:
                images, masks = folder / split / "images", folder / split / "masks" / "0"
            save(image, images / f"{index:05}.png")
            if kind != "none":
                save(mask.astype(np.uint8) * 255, masks / f"{index:05}.png")


def save(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def main() -> None:
    parser = PlainParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where to write; must be new or empty")
    parser.add_argument("--train", type=int, default=800, help="number of training images (default: 800)")
    parser.add_argument("--val", type=int, default=200, help="number of validation images (default: 200)")
    parser.add_argument("--test", type=number(int, 0), default=0, help="number of test images (default: none)")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels (default: 64)")
    parser.add_argument("--seed", type=SEED, default=0, help="fixes all images (default: 0)")
    parser.add_argument("--segmentation", action="store_true", help="in segmentation's layout, all with a lesion")
    args = parser.parse_args()
    if args.folder.exists() and not args.folder.is_dir():
        raise InputError(f"{args.folder} is a file; choose a new folder")
    if args.folder.exists() and any(args.folder.iterdir()):
        raise InputError(f"{args.folder} is not empty; choose a new folder")
    if min(args.train, args.val) < len(CLASSES) or args.size < 16:
        raise InputError(f"--train and --val must be at least {len(CLASSES)}, --size at least 16")
    try:
        write_phantoms(args.folder, args.train, args.val, args.size, args.seed, args.segmentation, args.test)
    except OSError as error:
        raise InputError(f"{args.folder} cannot be written: {error.strerror}") from None
    print(f"{args.train} + {args.val} + {args.test} phantoms of {args.size} px in {args.folder}")


if __name__ == "__main__":
    run_script(main)
