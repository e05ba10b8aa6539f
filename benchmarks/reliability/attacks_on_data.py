"""Hostile data: image files, folders of them, lists of them, tables of them."""

from __future__ import annotations

import io
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

import odd
from osdtw_models.datasets import read_images
from osdtw_models.pixels import IMAGE_FORMATS, decode_image, fit_image, open_image
from osdtw_models.sources.cifar_images import CIFAR100
from sandbox import Attack

FORMS = (*((kind, "RGB") for kind in IMAGE_FORMATS), ("PNG", "P"), ("PNG", "LA"), ("PNG", "1"), ("PNG", "RGBA"))
OTHERS = (
    "PPM",
    "ICO",
    "PCX",
    "TGA",
    "SGI",
    "EPS",
    "PDF",
    "DDS",
    "IM",
    "SPIDER",
)  # Pillow knows them; we do not open them


def png(width: int, height: int, depth: int = 8, kind: int = 2, content: bytes = b"") -> bytes:
    """A PNG that claims a size, whatever it holds."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, kind, 0, 0, 0])
    end = chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + end


def _encoded(image: Image.Image, kind: str, **more: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **more)
    return target.getvalue()


def _pictures(folder: Path) -> dict[str, bytes]:
    """Sound images, and images of which the decoder must beware."""
    stream = np.random.default_rng(0)
    noise = Image.fromarray(stream.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    deep = Image.fromarray(stream.integers(0, 65536, (24, 32)).astype(np.uint16))
    found = {f"{kind} {mode}": _encoded(noise.convert(mode), kind) for kind, mode in FORMS}
    found |= {
        kind: _encoded(noise.convert("L" if kind == "SPIDER" else "RGB"), kind) for kind in OTHERS if kind != "SPIDER"
    }
    exif = Image.Exif()
    exif[274] = 6
    frames = [noise.rotate(angle) for angle in (90, 180, 270)]
    found["turned"] = _encoded(noise, "JPEG", exif=exif)
    found["CMYK"], found["CMYK TIFF"] = (_encoded(noise.convert("CMYK"), kind) for kind in ("JPEG", "TIFF"))
    found["palette with alpha"] = _encoded(noise.convert("P"), "PNG", transparency=bytes(range(256)))
    found["16 bits"], found["16 bits TIFF"] = _encoded(deep, "PNG"), _encoded(deep, "TIFF")
    found["floats"] = _encoded(deep.convert("F"), "TIFF")
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        found[f"animated {kind}"] = _encoded(noise, kind, save_all=True, append_images=frames)
    found["LZW TIFF"] = _encoded(noise, "TIFF", compression="tiff_lzw")
    found["one pixel"] = _encoded(noise.crop((0, 0, 1, 1)), "PNG")
    found["nothing wide"], found["400 megapixels"] = png(0, 5), png(20_000, 20_000)
    found["strip"], found["pole"] = png(79_000_000, 1, content=b"\0" * 1000), png(1, 79_000_000, content=b"\0" * 1000)
    found["a real strip"] = _encoded(Image.new("L", (1_000_000, 1)), "PNG")
    found["80 megapixels"] = _encoded(Image.new("L", (8900, 8900)), "PNG")
    found["text bomb"] = png(8, 8).replace(b"IDAT", b"zTXt", 1)
    found["empty"], found["text"], found["fits"] = b"", b"hello\n", b"SIMPLE  =                    T" + b" " * 2850
    return found


def _image(stream: Random, folder: Path, pictures: dict[str, bytes]) -> Callable[[], object]:
    name = stream.choice(list(pictures))
    content = pictures[name]
    if stream.random() < 0.85:
        content = odd.spoilt(content, stream, stream.choice((64, None)))
    fit = stream.choice((1, 32, 224)), stream.choice((1.0, 0.875)), stream.choice(("bilinear", "bicubic"))
    if stream.random() < 0.3:
        return lambda: fit_image(decode_image(content, "bytes"), *fit)
    file = folder / f"image{stream.choice(('.png', '.jpg', '.gif', '.tif', '.webp', '.bmp'))}"
    file.write_bytes(content)
    return lambda: fit_image(open_image(file), *fit)


def _sound(folder: Path) -> dict[str, bytes]:
    (folder / "trap.png").write_bytes(b"secret")
    return _pictures(folder)


def _home(stream: Random, folder: Path) -> Path:
    """An empty folder; what the try before left is gone."""
    for old in folder.glob("data*"):
        shutil.rmtree(old)
    home = folder / f"data{stream.randrange(10**9)}"
    home.mkdir()
    return home


def _place(stream: Random, place: Path, content: bytes) -> None:
    """A file, or what may stand in its place, where the file system takes the name."""
    kind = stream.randrange(12)
    try:
        if kind == 0:
            place.symlink_to(stream.choice(("/dev/zero", "/etc/passwd", place.name, "../../trap.png", "/none", "..")))
        elif kind == 1:
            os.mkfifo(place)
        elif kind == 2:
            place.mkdir()
        else:
            place.write_bytes(content)
    except (OSError, ValueError):
        return


def _name(stream: Random) -> bytes:
    """A file name as the system keeps it, which need not be text."""
    if stream.random() < 0.2:
        return bytes(stream.randrange(1, 256) for _ in range(8)).replace(b"/", b"_")
    return stream.choice(odd.NAMES).encode("utf-8", "surrogatepass").replace(b"/", b"_")


def _folder(stream: Random, folder: Path, pictures: dict[str, bytes]) -> Callable[[], object]:
    home = _home(stream, folder)
    parts = [home / "train", home / stream.choice(("val", "test"))] if stream.random() < 0.3 else [home]
    names = [b"cat", b"dog"] + [_name(stream) for _ in range(stream.randrange(3))]
    for root in parts:
        for name in names:
            try:
                inner = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
                inner.mkdir(parents=True, exist_ok=True)
            except (OSError, ValueError):
                continue
            for i in range(stream.choice((0, 1, 2))):
                own = _name(stream)[:200] if stream.random() < 0.3 else b"%d" % i
                content = pictures[
                    stream.choice(("PNG RGB", "JPEG RGB", "PNG RGB", "text", "400 megapixels", "one pixel"))
                ]
                _place(stream, Path(os.fsdecode(os.fsencode(inner) + b"/" + own + b".png")), content)
    broken, lazy = stream.choice(("error", "leave_out", "leave_out")), stream.random() < 0.5
    split = stream.choice(("train", "test", "val"))
    return lambda: read_images(str(home), split, 8, lazy=lazy, broken=broken).digests()


def _list(stream: Random, folder: Path, pictures: dict[str, bytes]) -> Callable[[], object]:
    home = _home(stream, folder)
    (home / "images").mkdir()
    for i in range(4):
        _place(stream, home / "images" / f"{i}.png", pictures["PNG RGB"])
    (home / "images" / "out").symlink_to("/")
    labels = stream.choice(
        (("0", "1"), ("cat", "dog"), ("0", "0"), ("0", "7"), ("-1", "1"), ("0", "1e3"), ("0", "9" * 30))
    )
    suffix = stream.choice((".csv", ".txt"))
    rows = []
    for i in range(stream.choice((0, 1, 4, 4, 4))):
        path = f"{i}.png"
        if stream.random() < 0.15:
            path = stream.choice((*odd.NAMES, "out/etc/passwd", "./0.png", "../images/0.png", "../../trap.png"))
        label = stream.choice(labels) if stream.random() < 0.9 else stream.choice(odd.NAMES)
        rows.append(f"{path},{label}" if suffix == ".csv" else f"{path} {label}")
    if suffix == ".csv" and stream.random() < 0.3:
        rows.insert(
            0, stream.choice(("path,label", "label,path", "path,path", "a,b", "path", "path,label,x", "image,class"))
        )
    if stream.random() < 0.1:
        rows.insert(0, stream.choice(('"open', "\0", "x" * 200_000, "a,b,c,d", '"a""')))
    content = stream.choice(("\n", "\r\n")).join(rows).encode("utf-8", "surrogatepass")
    file = home / f"list{suffix}"
    file.write_bytes(odd.spoilt(content, stream) if stream.random() < 0.2 and content else content)
    return lambda: read_images(str(file), "train", 8, str(home / "images"), lazy=True, broken="leave_out").digests()


def _parquet(stream: Random, folder: Path, pictures: dict[str, bytes]) -> Callable[[], object]:
    from pyarrow import Table, parquet

    home = _home(stream, folder)
    cell = {"bytes": pictures["PNG RGB"], "path": "x"}
    images = [
        stream.choice((cell, cell, None, {"bytes": None, "path": ""}, {"bytes": b"text", "path": "x"}))
        for _ in range(3)
    ]
    labels = [stream.choice((0, 1, 99, 100, -1, None, 2**40)) for _ in range(3)]
    table = {"img": images, CIFAR100.label: labels}
    kind = stream.randrange(6)
    if kind == 0:
        table = {"img": ["a", "b", "c"], CIFAR100.label: labels}
    elif kind == 1:
        table = {"img": images, CIFAR100.label: ["a", "b", None]}
    elif kind == 2:
        del table[stream.choice(("img", CIFAR100.label))]
    file = home / "train-0.parquet"
    parquet.write_table(Table.from_pydict(table), file)
    if kind > 3:
        file.write_bytes(odd.spoilt(file.read_bytes(), stream))
    return lambda: read_images("cifar100", "train", 32, str(home))


ATTACKS = (
    Attack("images of 40 kinds, sound and spoilt", "open_image, decode_image, fit_image", 600, _pictures, _image),
    Attack("folders: odd names, links, pipes, bombs", "read_images", 300, _sound, _folder),
    Attack("lists: odd paths, labels, lines", "read_images", 800, _sound, _list),
    Attack("parquet tables", "read_images", 100, _sound, _parquet),
)
