"""More than 8 bits: one range for a data set, all levels kept, and 8-bit sets as they were."""

import shutil

import numpy as np
import pytest
import torch
from conftest import TINY_FINETUNE, TINY_PRETRAIN, content_of
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from util.data.augment import Augment
from util.data.folders import open_splits
from util.data.images import Images, read_image
from util.data.intensity import Levels, shared_range
from util.data.loading import TrainingImages, resize_whole
from util.data.reading import Reading

HOT = 5000  # one pixel that 12 bits do not hold


def grey12(rng, scale=1.0):
    """A picture of 12 bits: a ramp with noise."""
    return (scale * (np.linspace(0, 4000, 32 * 32).reshape(32, 32) + rng.uniform(0, 95, (32, 32)))).astype(np.uint16)


def write_set(folder, images, split="train", classes=("a", "b")):
    for number, image in enumerate(images):
        path = folder / split / classes[number % len(classes)] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.fixture
def deep(tmp_path):
    """24 training and 8 validation images of 12 bits; one of each set has a hot pixel."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        images = [grey12(rng) for _ in range(count)]
        images[3][5, 5] = HOT
        write_set(tmp_path / "deep", images, split)
    return tmp_path / "deep"


def opened(folder, split="train", cache="ram", reading=None):
    return Images(open_splits(str(folder), (split,))[0], cache, reading=reading or Reading())


def test_a_hot_pixel_costs_no_levels(deep):
    images = opened(deep)
    low, high = images.reading.intensity_range
    assert 0 <= low < 200 and 3900 < high <= 4095
    hot = next(index for index, path in enumerate(images.paths) if path.endswith("03.png"))
    assert len(images[hot].unique()) > 800  # by the pixel of 5,000, the range was 16 bits: 17 of 256 levels
    assert images[hot].max() == 255 and images[hot].median() == pytest.approx(127, abs=4)


def test_brightness_does_not_depend_on_the_maximum_of_an_image(deep):
    """Images that differ in one pixel are equal elsewhere, whatever that pixel is, in the set and in a later one."""
    reading = opened(deep).reading
    image = grey12(np.random.default_rng(7))
    read = []
    for value in (0, 4095, HOT, 65535):
        image[0, 0] = value
        Image.fromarray(image).save(deep / "one.png")
        read.append(read_image(str(deep / "one.png"), reading)[:, 1:])
    assert all(torch.equal(each, read[0]) for each in read)
    before = reading.intensity_range
    for index in (3, 9):
        spoilt = np.array(Image.open(next((deep / "train").rglob(f"{index:02}.png"))))
        spoilt[0, 0] = 65535
        Image.fromarray(spoilt).save(next((deep / "train").rglob(f"{index:02}.png")))
    assert opened(deep).reading.intensity_range == pytest.approx(before, abs=10)


def test_the_range_is_robust_told_or_none():
    images = [Levels((0.0, high)) for high in (900.0, 950.0, 1000.0, 60000.0)]
    assert shared_range(images)[0] == (0, 1000)
    assert shared_range([Levels((0.0, 10.0), (0, 4095))] * 3)[0] == (0, 4095)
    assert shared_range([Levels((0.0, 10.0), (0, 4095)), Levels((0.0, 90.0))])[0] == (0, 10)
    assert shared_range([Levels(None)]) is None
    assert shared_range([Levels((3.0, 8.0))])[0] == (3, 8)


def test_float_images_share_the_range(tmp_path):
    """Twice as bright stays twice as bright, and what is no number is black."""
    ramp = np.linspace(-1, 1, 1024, dtype=np.float32).reshape(32, 32)
    for number, scale in enumerate((1, 1, 2, 2, 2, 2)):
        path = tmp_path / "train" / "ab"[number % 2] / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = scale * ramp
        image[-1, -1] = np.nan
        Image.fromarray(image).save(path)
    images = opened(tmp_path)
    assert images.reading.intensity_range == pytest.approx((-2, 2), abs=0.02)
    by_name = {path[-5]: images[index] for index, path in enumerate(images.paths)}
    assert by_name["0"][0, 0, 0] == pytest.approx(63.75, abs=1) and by_name["2"][0, 0, 0] == pytest.approx(0, abs=1)
    assert by_name["0"][0, -1, -1] == 0


def test_validation_follows_training_and_says_what_lies_outside(deep, capsys):
    train = opened(deep)
    for path in (deep / "val").rglob("*.png"):
        Image.fromarray(np.array(Image.open(path)) * 8).save(path)
    val = opened(deep, "val", reading=train.reading)
    out = capsys.readouterr().out
    assert val.reading == train.reading and "train: intensity range" in out and "(24 images" in out
    assert "8 of the 8 images of val reach far beyond" in out


def test_the_cache_changes_nothing_and_the_levels_are_remembered(deep, monkeypatch):
    kept, read = opened(deep, cache="ram"), opened(deep, cache="off")
    assert read.decoded is None and kept.reading == read.reading
    assert all(torch.equal(kept[index], read[index]) for index in range(24))
    assert kept.decoded[0].values.nbytes == 2 * 32 * 32  # as the file has them
    monkeypatch.setattr("util.data.images.read_pixels", None)  # not even called
    assert opened(deep, cache="off").reading == kept.reading


@pytest.mark.parametrize("given", [{"intensity_range": (1000, 3000)}, {"window": (2000, 2000)}])
def test_a_range_can_be_given(deep, given):
    images = opened(deep, reading=Reading(**given))
    values = torch.from_numpy(np.array(Image.open(images.paths[0])).astype(np.float32))
    torch.testing.assert_close(images[0][0], ((values - 1000) / 2000).clamp(0, 1) * 255)


def test_eight_bit_sets_are_what_they_were(phantoms, tmp_path):
    """Bit for bit, in type and in memory, also where a range is given."""
    for reading in (Reading(), Reading(intensity_range=(10, 20))):
        images = opened(phantoms, reading=reading)
        assert not images.deep and images.reading == reading
        for index, path in enumerate(images.paths):
            expected = TF.pil_to_tensor(Image.open(path).convert("RGB"))
            assert images[index].dtype == torch.uint8 and torch.equal(images[index], expected)
            assert images.decoded[index].values.dtype == torch.uint8


def test_a_set_of_both_depths_has_one_type(deep):
    Image.fromarray(np.full((32, 32), 100, dtype=np.uint8)).save(deep / "train" / "a" / "eight.png")
    images = opened(deep)
    eight = next(index for index, path in enumerate(images.paths) if path.endswith("eight.png"))
    assert {images[index].dtype for index in range(len(images))} == {torch.float32} and (images[eight] == 100).all()


def test_crop_and_resize_keep_all_levels(deep, capsys):
    """In 8 bits, at most 256 values would be left; and no colour is lost by bicubic resampling's overshooting."""
    images = opened(deep)
    assert len(resize_whole(images[0], 64).unique()) > 1000
    maps = torch.ones(24, 4, 4)
    for augment in (Augment(64, 16), Augment(64, 16, color_jitter=0.4)):
        image = TrainingImages(images, augment, maps, 0)[0]["image"]
        assert image.dtype == torch.float32 and len(image.unique()) > 1000 and 0 <= image.min() < image.max() <= 255
    assert "--aa" not in capsys.readouterr().out
    image = TrainingImages(images, Augment(64, 16, policy="rand-m9-mstd0.5-inc1"), maps, 0)[0]["image"]
    assert image.dtype == torch.uint8 and "--aa works in 8 bits" in capsys.readouterr().out


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_exif_orientation_is_applied(orientation, name, tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 24), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / name, exif=exif)
    raw = np.array(Image.open(tmp_path / name).convert("RGB")) if name != "a.tif" else np.array(image.convert("RGB"))
    turn = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
            6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a)}  # fmt: skip
    expected = turn.get(orientation, lambda a: a)(raw)
    np.testing.assert_array_equal(read_image(str(tmp_path / name)).permute(1, 2, 0).numpy(), expected)


def test_the_checkpoint_keeps_the_range(deep, call, tmp_path):
    """Pre-training finds one, fine-tuning its own; --eval and --resume take it from the checkpoint, or what is typed."""
    out = {name: tmp_path / name for name in ("pre", "fine", "eval", "typed")}
    pretrain = f"main_pretrain.py {TINY_PRETRAIN} --epochs 1 --warmup_epochs 0 --data_path {deep} --output_dir {out['pre']}"
    status, said, err = call(f"{pretrain} --intensity_range 0 9000")
    assert status == 0, err
    assert "train: intensity range 0 to 9000" in said
    assert content_of(out["pre"] / "checkpoint-last.pth")["args"]["intensity_range"] == [0, 9000]

    finetune = f"main_finetune.py {TINY_FINETUNE} --warmup_epochs 0 --data_path {deep} --output_dir {out['fine']}"
    status, said, err = call(f"{finetune} --epochs 1 --finetune {out['pre'] / 'checkpoint-last.pth'}")
    assert status == 0, err
    checkpoint = out["fine"] / "checkpoint-last.pth"
    found = content_of(checkpoint)["args"]["intensity_range"]
    assert 3900 < found[1] <= 4095 and "--intensity_range" not in said

    test = shutil.copytree(deep / "val", deep / "test")
    for path in test.rglob("*.png"):
        Image.fromarray(np.array(Image.open(path)) // 2).save(path)
    status, said, err = call(f"main_finetune.py --eval --resume {checkpoint} --data_path {deep} --output_dir {out['eval']} "
                             "--device cpu")  # fmt: skip
    assert status == 0 and f"test: intensity range {found[0]:g} to {found[1]:g}" in said, err
    status, said, err = call(f"main_finetune.py --eval --resume {checkpoint} --data_path {deep} --window 1000 2000 "
                             f"--output_dir {out['typed']} --device cpu")  # fmt: skip
    assert status == 0 and "test: intensity range 0 to 2000" in said, err

    for path in (deep / "train").rglob("*.png"):  # a run that goes on does not look for another one
        Image.fromarray(np.array(Image.open(path)) // 2).save(path)
    status, said, err = call(f"{finetune} --epochs 2 --resume {checkpoint}")
    assert status == 0 and f"train: intensity range {found[0]:g} to {found[1]:g}" in said, err


@pytest.mark.parametrize(
    "options, named",
    [
        ("--intensity_range 5 5", "--intensity_range 5 5"),
        ("--window 40 0", "--window 40 0"),
        ("--window 40 400 --intensity_range 0 1", "--intensity_range and --window"),
        ("--slice 3 middle", "--slice 3 middle"),
        ("--slice middle 1", "--slice middle 1"),
        ("--slice 0 -1", "--slice"),
        ("--frame -1", "--frame"),
    ],
)
def test_wrong_options_are_one_line(options, named, call, phantoms):
    for script in ("main_pretrain.py", "main_finetune.py"):
        status, _, err = call(f"{script} --data_path {phantoms} {options}")
        assert status == 2 and named in err and len(err.splitlines()) == 1


def test_util_explain_reads_as_the_model_was_trained(deep, call, tmp_path):
    """By the range in the checkpoint, or by what is said; not by the levels of the one image."""
    from models_msmae import load_model
    from util import explain
    from util.data.augment import denormalize

    command = (
        f"main_pretrain.py {TINY_PRETRAIN} --epochs 1 --warmup_epochs 0 --data_path {deep} --output_dir {tmp_path / 'run'}"
    )
    assert call(command)[0] == 0
    model = load_model(tmp_path / "run" / "checkpoint-last.pth")
    dark = grey12(np.random.default_rng(1), scale=0.25)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    shown = explain.network_input(model, str(tmp_path / "dark.png"))
    shown = denormalize(shown, model.variant.mean, model.variant.std)
    assert model.reading.intensity_range[1] > 3900 and 0.2 < shown.max() < 0.27
    bright = explain.network_input(model, str(tmp_path / "dark.png"), Reading(window=(500, 1000)))
    assert denormalize(bright, model.variant.mean, model.variant.std).max() > 0.95
    assert explain.attention_map(model, str(tmp_path / "dark.png"), reading=Reading(window=(500, 1000))).shape == (4, 4)
