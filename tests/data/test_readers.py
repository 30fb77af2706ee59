"""Formats: each file of nibabel's own is read as nibabel reads it, or refused in one line; and so are others."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from data.dicom_files import DICOM, DICOM_FILES, RAMP, write_dicom
from PIL import Image

from util.data import readers
from util.data.folders import open_splits
from util.data.images import Images, read_image, read_mask, read_pixels
from util.data.intensity import colours
from util.data.reading import Reading
from util.data.records import read_records
from util.data.unlabelled import find_files
from util.system.errors import InputError

nibabel, tifffile = (pytest.importorskip(name) for name in ("nibabel", "tifffile"))
NIFTI = Path(nibabel.__file__).parent / "tests" / "data"


@pytest.mark.parametrize("name", ["anatomical.nii", "functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz",
                                  "reoriented_anat_moved.nii", "standard.nii.gz"])  # fmt: skip
def test_slices_of_nibabels_files_are_those_of_the_canonical_volume(name):
    image = nibabel.as_closest_canonical(nibabel.load(NIFTI / name))
    volume = image.get_fdata()
    volume = volume[..., 1] if volume.ndim == 4 else volume
    frame = 1 if image.ndim == 4 else None
    for axis in range(3):
        for index in (0, "middle", volume.shape[axis] - 1):
            expected = np.rot90(volume.take(volume.shape[axis] // 2 if index == "middle" else index, axis))
            pixels = read_pixels(str(NIFTI / name), Reading(slice=(axis, index), frame=frame))
            np.testing.assert_allclose(pixels.values[0].numpy(), expected, rtol=1e-5)
    with pytest.raises(InputError, match="--slice AXIS INDEX"):
        read_image(str(NIFTI / name), Reading(frame=frame))
    with pytest.raises(InputError, match="--slice 1 999 is not among them"):
        read_image(str(NIFTI / name), Reading(slice=(1, 999), frame=frame))
    if frame:
        with pytest.raises(InputError, match="frames: choose one by --frame"):
            read_image(str(NIFTI / name), Reading(slice=(1, 0)))


def test_no_file_of_nibabels_crashes():
    for path in sorted(path for path in NIFTI.rglob("*") if path.is_file()):
        try:
            read_image(str(path), Reading(frame=0, slice=(2, "middle")))
        except InputError as error:
            assert path.name in str(error) and "\n" not in str(error)


def test_nifti_by_content_flat_and_in_a_pair(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(6, 4)
    image = nibabel.Nifti1Image(values, np.diag([1, 1, 1, 1]))
    nibabel.save(image, tmp_path / "flat.nii.gz")
    (tmp_path / "flat.nii.gz").rename(tmp_path / "IM0001")
    nibabel.save(nibabel.Nifti1Pair(values[..., None], np.eye(4)), tmp_path / "pair.hdr")
    for name in ("IM0001", "pair.hdr"):
        pixels = read_pixels(str(tmp_path / name), Reading())
        np.testing.assert_array_equal(pixels.values[0].numpy(), np.rot90(values))


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "uint32", "int16", "uint16"])
def test_tiff_of_any_type(kind, tmp_path):
    values = np.linspace(0, 1000, 256).reshape(16, 16).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values)
    image = read_image(str(tmp_path / "a.tif"), Reading((0, 1000)))
    torch.testing.assert_close(image[0], torch.from_numpy(values.astype(np.float32)) / 1000 * 255, atol=1e-3, rtol=0)


def test_tiff_of_signed_bytes(tmp_path):
    values = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    tifffile.imwrite(tmp_path / "a.tif", values)
    image = read_image(str(tmp_path / "a.tif"), Reading((-128, 127)))
    np.testing.assert_allclose(image[0].numpy(), values.astype(np.float32) + 128, atol=1e-3)


@pytest.mark.parametrize("imagej", [False, True])
def test_pages_of_tiff_are_chosen(imagej, tmp_path):
    pages = np.random.default_rng(0).integers(0, 60000, (3, 8, 9)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pages, imagej=imagej, **({} if imagej else {"photometric": "minisblack"}))
    with pytest.raises(InputError, match="3 frames: choose one by --frame, 0 to 2"):
        read_image(str(tmp_path / "a.tif"))
    for frame in range(3):
        np.testing.assert_array_equal(read_pixels(str(tmp_path / "a.tif"), Reading(frame=frame)).values[0], pages[frame])


def test_deep_colour_and_white_for_zero(tmp_path):
    """16 bits a channel as PNG and as TIFF (with and without compression); a TIFF of which the largest value is black."""
    from imagecodecs import png_encode

    colour = np.random.default_rng(0).integers(0, 65536, (8, 9, 3)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png_encode(colour))
    tifffile.imwrite(tmp_path / "a.tif", colour, photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", colour, photometric="rgb", compression="lzw")
    for name in ("a.png", "a.tif", "b.tif"):
        image = read_image(str(tmp_path / name), Reading((0, 65535)))
        np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), colour / 257, atol=1e-3)
    tifffile.imwrite(tmp_path / "c.tif", colour[..., 0], photometric="miniswhite")
    tifffile.imwrite(tmp_path / "d.tif", colour[..., 0].astype(np.uint8), photometric="miniswhite")
    white = read_image(str(tmp_path / "c.tif"), Reading((0, 65535)))
    np.testing.assert_allclose(white[0].numpy(), 255 - colour[..., 0] / 257, atol=1e-3)
    np.testing.assert_array_equal(read_image(str(tmp_path / "d.tif"))[0], 255 - colour[..., 0].astype(np.uint8))


def medmnist(path, **replaced):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 12), ("val", 6), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    np.savez(path, **{**arrays, **replaced})
    return np.load(path)


def test_medmnist_in_prediction_is_all_its_images_or_one(tmp_path, monkeypatch):
    medmnist(tmp_path / "set.npz")
    monkeypatch.chdir(tmp_path)
    assert len(find_files(["set.npz"]).paths) == 22
    for given in ("set.npz/test/000001", "./set.npz/test/000001"):
        assert find_files([given]).paths == ["set.npz/test/000001"]
    assert find_files(["set.npz/test"]).paths == [f"set.npz/test/{number:06d}" for number in range(4)]
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "other.png")
    assert find_files(["."]).paths == ["other.png", *find_files(["set.npz"]).paths]
    with pytest.raises(InputError, match="has no such image; the first one is set"):
        find_files(["set.npz/test/9"])
    with pytest.raises(InputError, match="a whole data set: name one of its images as FILE/SPLIT/NUMBER"):
        read_image("set.npz")
    medmnist("chest.npz", train_labels=np.zeros((12, 14), dtype=np.uint8))  # several labels, which predicting does not need
    assert len(find_files(["chest.npz"]).paths) == 22


def test_medmnist_is_a_data_set_with_splits(tmp_path):
    arrays = medmnist(tmp_path / "set.npz")
    records = read_records(tmp_path / "set.npz")
    assert [sum(record.split == split for record in records) for split in ("train", "val", "test")] == [12, 6, 4]
    for cache in ("ram", "off"):
        train, val = (Images(files, cache) for files in open_splits(str(tmp_path / "set.npz"), ("train", "val")))
        assert train.classes == ["0", "1"] and train.labels.tolist() == [0, 1] * 6
        for images, split in ((train, "train"), (val, "val")):
            for index in range(len(images)):
                assert torch.equal(images[index], torch.from_numpy(arrays[f"{split}_images"][index]).expand(3, -1, -1))
    colour = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 3), dtype=np.uint8)
    medmnist(tmp_path / "colour.npz", val_images=colour)
    image = read_image(str(tmp_path / "colour.npz" / "val" / "2"))
    np.testing.assert_array_equal(image.permute(1, 2, 0), colour[2])
    volume = colour[..., :1].repeat(28, -1)
    medmnist(tmp_path / "volume.npz", val_images=volume)
    with pytest.raises(InputError, match="volume of 28 x 28 x 28: choose a slice by --slice"):
        read_image(str(tmp_path / "volume.npz" / "val" / "2"))
    image = read_image(str(tmp_path / "volume.npz" / "val" / "2"), Reading(slice=(0, 5)))
    np.testing.assert_array_equal(image[0], volume[2, 5])


@pytest.mark.parametrize(
    "replaced, named",
    [
        ({"val_labels": np.zeros((6, 14), dtype=np.uint8)}, r"set\.npz/val/000000 has 14 labels, where one is needed"),
        ({"val_labels": np.zeros(6)}, "val_labels are no whole numbers"),
    ],
)
def test_a_npz_that_is_no_such_data_set_is_named(replaced, named, tmp_path):
    medmnist(tmp_path / "set.npz", **replaced)
    with pytest.raises(InputError, match=named):
        read_records(tmp_path / "set.npz")
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(InputError, match=r"other\.npz is no data set of MedMNIST: it holds no train_images"):
        read_records(tmp_path / "other.npz")


def test_folders_take_what_a_reader_recognises(tmp_path, capsys):
    """Names do not matter; what is no image is left aside and counted."""
    for label in "ab":
        folder = tmp_path / "train" / label
        folder.mkdir(parents=True)
        write_dicom(folder / "IM0001", RAMP)
        write_dicom(folder / "1.2.840.113", RAMP)
        nibabel.save(nibabel.Nifti1Image(RAMP[..., None].astype(np.int16), np.eye(4)), folder / "scan.nii.gz")
        Image.fromarray(RAMP.astype(np.uint8)).save(folder / "photo", "JPEG")
        (folder / "notes.txt").write_text("no image")
        (folder / "DICOMDIR").write_bytes((DICOM / "dicomdirtests" / "DICOMDIR").read_bytes())
    images = Images(open_splits(str(tmp_path), ("train",))[0])
    assert [Path(path).name for path in images.paths] == ["1.2.840.113", "IM0001", "photo", "scan.nii.gz"] * 2
    assert "not used: 2 no extension, 2 .txt" in capsys.readouterr().out


@pytest.mark.parametrize("package, write", [
    ("pydicom", lambda path: write_dicom(path, RAMP)),
    ("nibabel", lambda path: nibabel.save(nibabel.Nifti1Image(RAMP.astype(np.int16), np.eye(4)), f"{path}.nii")),
    ("tifffile", lambda path: tifffile.imwrite(f"{path}.tif", RAMP.astype(np.float32))),
])  # fmt: skip
def test_a_missing_package_is_asked_for_at_once(package, write, tmp_path, monkeypatch):
    """By its name, and not as so many bad images, which could be skipped."""
    for split in ("train", "val"):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            write(tmp_path / split / label / "one")
    monkeypatch.setitem(sys.modules, package, None)
    Image.fromarray(RAMP.astype(np.uint8)).save(tmp_path / "ordinary.tif")
    assert read_image(str(tmp_path / "ordinary.tif")).shape == (3, 64, 64)
    for cache in ("auto", "ram", "off"):
        with pytest.raises(InputError, match=rf"{package} is needed .*pip install -r requirements-formats.txt"):
            Images(open_splits(str(tmp_path), ("train",))[0], cache, on_bad="skip")


def test_masks_of_any_depth_are_0_and_255(tmp_path):
    mask = RAMP > 2000
    for number, array in enumerate((mask, mask.astype(np.uint8), mask.astype(np.uint16), mask.astype(np.float32),
                                    mask.astype(np.uint16) * 65535)):  # fmt: skip
        tifffile.imwrite(tmp_path / f"{number}.tif", array, photometric="minisblack")
        found = read_mask(str(tmp_path / f"{number}.tif"))
        assert set(found.unique().tolist()) in ({0, 255}, {0, 1})
        np.testing.assert_array_equal(found > 0, mask)


def test_a_mask_is_what_it_marks_whatever_the_header_made_of_its_values(tmp_path):
    marked = np.zeros((8, 8), bool)
    marked[2:4, 3:6] = True
    tifffile.imwrite(tmp_path / "white.tif", np.where(marked, 0, 65535).astype(np.uint16), photometric="miniswhite")
    tifffile.imwrite(tmp_path / "none.tif", np.full((8, 8), 65535, np.uint16), photometric="miniswhite")
    tifffile.imwrite(tmp_path / "moved.tif", np.where(marked, -1023, -1024).astype(np.int16), photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels.tif", np.where(marked, 1, 0).astype(np.uint16) + np.eye(8, dtype=np.uint16) * 600)
    for name in ("white", "moved"):
        np.testing.assert_array_equal(read_mask(str(tmp_path / f"{name}.tif")), 255 * marked)
    assert not read_mask(str(tmp_path / "none.tif")).any()
    labels = read_mask(str(tmp_path / "labels.tif"))
    np.testing.assert_array_equal(labels > 0, marked | np.eye(8, dtype=bool))
    assert len(labels.unique()) == 3


def test_one_reader_recognises_a_file(tmp_path):
    """So their order does not matter."""
    volumes = [*NIFTI.glob("*.nii*")]
    for path in [*DICOM_FILES, *volumes]:
        head = path.read_bytes()[: readers.HEAD]
        recognised = sum(reader.recognises(head) for reader in readers.READERS)
        assert recognised == 1 if path in volumes else recognised <= 1, path  # pydicom has files that are no DICOM


def test_colours_of_a_constant_image_and_of_one_without_numbers(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (7, np.nan):
            tifffile.imwrite(tmp_path / "a.tif", np.full((8, 8), value, dtype=np.float32))
            assert colours(read_pixels(str(tmp_path / "a.tif"), Reading()), None).unique().tolist() == [0]
