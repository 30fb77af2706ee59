"""Miniatures of the official downloads, with their names, folders, tables and zips, and the command to prepare them."""

import csv
import io
import signal
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from util.prepare import busi
from util.prepare.__main__ import run
from util.prepare.data_sets import DATA_SETS
from util.system.errors import run_script

DL_INFO = (
    "File_name,Patient_index,Study_index,Series_ID,Key_slice_index,Measurement_coordinates,Bounding_boxes,"
    "Lesion_diameters_Pixel_,Normalized_lesion_location,Coarse_lesion_type,Possibly_noisy,Slice_range,Spacing_mm_px_,"
    "Image_size,DICOM_windows,Patient_gender,Patient_age,Train_Val_Test"
)


def picture(name: str, number: int) -> bytes:
    """A small image whose pixels depend on the number, in the format that its name says."""
    return noise("PNG" if name.endswith(".png") else "JPEG", number)


@cache
def noise(kind: str, number: int) -> bytes:
    return encode(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8), kind)


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


def make_btmd(size) -> dict[str, bytes]:
    names = [f"{part.title()}/{label}/T{part[1]}-{label[:2]}_{number:04}.jpg"
             for (part, label), count in DATA_SETS["btmd"].published.items() for number in range(size(count))]  # fmt: skip
    return {name: picture(name, index) for index, name in enumerate(names)}


def make_chestxray2017(size) -> dict[str, bytes]:
    names = ["__MACOSX/chest_xray/._train", "chest_xray/.DS_Store"]
    for (part, label), count in DATA_SETS["chestxray2017"].published.items():
        for number in range(size(count)):
            kind = "bacteria" if number % 3 else "virus"
            name = f"person{number // 2}_{kind}_{number}" if label == "PNEUMONIA" else f"IM-{number:04}-0001"
            names.append(f"chest_xray/{part}/{label}/{name}.jpeg")
    return {name: picture(name, index) for index, name in enumerate(names)}


def make_busi(size) -> dict[str, bytes]:
    files = {}
    for (_, label), count in DATA_SETS["busi"].published.items():
        for number in range(1, size(count) + 1):
            stem = f"Dataset_BUSI_with_GT/{label}/{label} ({number})"
            files[f"{stem}.png"] = picture(".png", len(files))
            for suffix, row in (("_mask", 0), ("_mask_1", 4))[: 2 if number == 2 else 1]:
                mask = np.zeros((8, 8), dtype=bool)
                mask[row : row + 2] = label != "normal"
                files[f"{stem}{suffix}.png"] = encode(mask if number % 2 else mask.astype(np.uint8) * 255)
    return files


def make_ham10000(size) -> dict[str, bytes]:
    rows, files = ["lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"], {}
    for (_, label), count in DATA_SETS["ham10000"].published.items():
        for number in range(size(count)):
            lesion = f"HAM_{label}{number - (number % 3 == 1)}"  # two images of every second lesion
            rows.append(f"{lesion},ISIC_{len(rows):07},{label},histo,50.0,male,back,vidir_modern")
            files[f"HAM10000_images_part_{1 + number % 2}/ISIC_{len(rows) - 1:07}.jpg"] = picture(".jpg", len(rows))
    return {**files, "HAM10000_metadata": "\r\n".join(rows).encode("utf-8-sig")}


def make_messidor2(size) -> dict[str, bytes]:
    names, rows, files = [], ["image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable"], {}
    grades = [label for (_, label), count in DATA_SETS["messidor2"].published.items() for _ in range(size(count))]
    for number, grade in enumerate([*grades, "", "", "", ""]):
        names.append(f"2005{number:04}_4{number:04}_0100_PP.png" if number % 2 else f"IM{number:06}.JPG")
        rows.append(f"{names[-1].replace('JPG', 'jpg')},{grade},{'0' if grade else ''},{int(grade != '')}")
        files[f"IMAGES/{names[-1]}"] = picture(names[-1], number)
    pairs = ["left;right", *[";".join(names[number : number + 2]) for number in range(0, len(names), 2)]]
    return {**files, "messidor_data.csv": "\n".join(rows).encode(), "messidor-2.csv": "\n".join(pairs).encode()}


def make_deeplesion(size) -> dict[str, bytes]:
    rows, files = [DL_INFO], {}
    for part in (1, 2, 3):
        for number in range(size(4900)):
            patient = 100 * part + number // 3
            row = f'"{number}, 1, 5, 5, 3, 2, 3, 6","2.2, 1.4, 6.4, 4.6","4.1, 2.2","0.5, 0.5, 0.5"'
            kind = -1 if part == 1 else number % 8 + 1
            for lesion in range(2 if number == 9 else 1):  # one slice has two lesions
                rows.append(f'{patient:06}_01_01_{number:03}.png,{patient},1,1,{number},{row},{kind if not lesion else 5},0,'
                            f'"1, 9","0.8, 0.8, 5","8, 8","-175, 275",F,60,{part}')  # fmt: skip
            pixels = np.full((8, 8), 32768 + 50, dtype=np.uint16)
            pixels[0, 0], pixels[0, 1], pixels[7, 7] = 32768 - 1000, 32768 + 900, 32768 + number
            files[f"Images_png/{patient:06}_01_01/{number:03}.png"] = encode(pixels)
    return {**files, "DL_info.csv": "\n".join(rows).encode()}


MAKERS = {name.removeprefix("make_"): each for name, each in list(globals().items()) if name.startswith("make_")}


def few(_: int) -> int:
    return 16


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def packed(files: dict[str, bytes], under: str = "") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            if name.startswith(under):
                archive.writestr(name, content)
    return data.getvalue()


def as_published(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files that the source offers for download."""
    loose = {path: data for path, data in files.items() if "/" not in path}
    if name == "ham10000":
        return loose | {f"{part}.zip": packed(files, part) for part in ("HAM10000_images_part_1", "HAM10000_images_part_2")}
    if name == "messidor2":
        data = packed(files, "IMAGES/")
        cuts = [0, 1000, 9000, len(data)]
        return loose | {f"IMAGES.zip.{number:03}": data[cuts[number - 1] : cuts[number]] for number in (1, 2, 3)}
    if name == "deeplesion":
        return loose | {f"Images_png/Images_png_0{part}.zip": packed(files, f"Images_png/000{part}") for part in (1, 2, 3)}
    return {f"{name}.zip": packed(files)}


def prepare(*words) -> tuple[int, str, str]:
    """Call the command in this process; return exit status, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    handler, status = signal.getsignal(signal.SIGTERM), 0
    with mock.patch.object(sys, "argv", ["util.prepare", *map(str, words)]), redirect_stdout(out), redirect_stderr(err):
        try:
            run_script(run)
        except SystemExit as stop:
            status = stop.code
        finally:
            signal.signal(signal.SIGTERM, handler)
    return status, out.getvalue(), err.getvalue()


def done(name: str, download: Path, dest: Path, *words) -> Path:
    """Call the command on a miniature, which must succeed; return DEST."""
    status, _, err = prepare(name, download, dest, "--allow_incomplete", *words)
    assert status == 0, err
    return dest


def let_miniatures_pass(monkeypatch) -> None:
    """Let a miniature of 16 images of each class (and part) pass for the whole data set."""
    for name, data_set in list(DATA_SETS.items()):
        published = {key: 17 if name == "deeplesion" else 16 for key in data_set.published}
        monkeypatch.setitem(DATA_SETS, name, replace(data_set, published=published))
    monkeypatch.setattr(busi, "SIZES", dict.fromkeys(busi.SIZES, 16))


def refused(result, *words) -> None:
    status, _, err = result
    assert status == 2 and len(err.strip().splitlines()) == 1 and err.startswith("error: "), err
    assert all(word in err for word in words), err


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def table(dest: Path) -> list[dict[str, str]]:
    with (dest / "split.csv").open(newline="") as file:
        return list(csv.DictReader(file))
