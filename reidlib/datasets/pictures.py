"""One reader for all picture files: which formats, how deep colours and transparency become RGB, which way is up."""

import os
import struct
import zlib

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")  # others (EPS starts an external program) are refused
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
GROUND = (255, 255, 255)  # what transparent pixels show: white, as in a viewer
# what a broken picture file makes Pillow raise, pictures of too many pixels included
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError, NotImplementedError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
ORIENTATION = 0x0112  # the EXIF tag, 1 to 8
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def open_picture(path: str | os.PathLike) -> Image.Image:
    """Open a picture file of one of `FORMATS`, whatever its name says; close it after use (`with`).

    Raises:
        UNREADABLE: any of these, here or when the pixels are read.
    """
    try:
        return Image.open(path, formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{path} is none of {', '.join(FORMATS)}, or is damaged") from error


def upright_rgb(picture: Image.Image, at_least: tuple[int, int] | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Return a picture in RGB with 8 bits, the right way up, and its full (width, height) that way.

    EXIF's orientation is followed. 16-bit grey is scaled (65535 is white); transparent pixels are laid on white
    (`GROUND`); of an animation the first picture is taken.

    Args:
        picture: as `open_picture` gives it.
        at_least: (width, height) from which on a large JPEG may be decoded smaller than it is, which is quicker.

    Raises:
        ValueError: 32-bit whole or floating-point numbers (nothing says which number is white).

    >>> upright_rgb(Image.new("LA", (4, 8), (0, 0)))[0].getpixel((0, 0))  # black, but transparent
    (255, 255, 255)
    """
    if picture.format not in ("JPEG", "MPO"):
        picture.load()  # a TIFF turns itself, and a PNG may say how to at its end
    turn = _orientation(picture)
    width, height = picture.size if turn < 5 else picture.size[::-1]
    if at_least is not None:
        picture.draft("RGB", at_least if turn < 5 else at_least[::-1])
    pixels = _eight_bits(picture)
    return (pixels.transpose(TURNS[turn]) if turn in TURNS else pixels), (width, height)


def upright(picture: Image.Image) -> Image.Image:
    """Return a picture the right way up, in its own mode (masks, label maps)."""
    picture.load()
    turn = _orientation(picture)
    return picture.transpose(TURNS[turn]) if turn in TURNS else picture


def _orientation(picture: Image.Image) -> int:
    try:
        turn = picture.getexif().get(ORIENTATION, 1)
    except UNREADABLE:  # damaged EXIF says nothing; the pixels may be whole
        return 1
    return turn if turn in TURNS else 1


def _eight_bits(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F"):
        low, high = picture.getextrema()
        kind = "whole" if picture.mode == "I" else "floating-point"
        raise ValueError(
            f"a picture of 32-bit {kind} numbers ({low} to {high}) does not say which is white; store 8 or 16 bits"
        )
    transparent = picture.info.get("transparency")
    if picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.uint32)
        grey = ((values * 255 + 32_767) // 65_535).astype(np.uint8)
        if isinstance(transparent, int):
            grey[values == transparent] = GROUND[0]
        picture = Image.fromarray(grey)
    elif transparent is not None or picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        # premultiplied grey has no way to RGBA of its own
        picture = picture.convert("LA") if picture.mode == "La" else picture
        ground = Image.new("RGBA", picture.size, (*GROUND, 255))
        picture = Image.alpha_composite(ground, picture.convert("RGBA"))
    return picture.convert("RGB")
