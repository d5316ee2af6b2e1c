"""What can be saved from a page: each figure as a picture and as numbers, in one archive inside it."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Iterable, Mapping

from bbi_lightning.comparison import tables
from bbi_lightning.comparison.figures import Picture, svg

_BEGINNING = (1980, 1, 1, 0, 0, 0)  # the archive is the same at every call
_PNG = re.compile(r'src="data:image/png;base64,([^"]*)"')


def figure_files(pictures: Iterable[Picture]) -> dict[str, bytes]:
    """For each picture `<key>.svg` (`.png` where it is one) and, if it has numbers, `<key>.csv`."""
    files: dict[str, bytes] = {}
    for picture in pictures:
        bitmap = _PNG.search(picture.markup) if picture.markup.startswith("<img") else None
        if bitmap:
            files[f"{picture.key}.png"] = base64.b64decode(bitmap[1])
        else:
            files[f"{picture.key}.svg"] = standalone(picture.markup).encode()
        if picture.data:
            files[f"{picture.key}.csv"] = tables.to_csv([dict(row) for row in picture.data]).encode()
    return files


def standalone(markup: str) -> str:
    """A page's `<svg>` as a file: with its namespace, a size, the light colours and white behind it."""
    colours = {"--ink": svg.INK, "--paper": svg.PAPER}
    colours |= {f"--arm-{place}": colour for place, colour in enumerate(svg.LIGHT)}
    markup = re.sub(r"var\((--[\w-]+)\)", lambda match: colours.get(match[1], match[0]), markup)
    markup = markup.replace("'DejaVu Sans'\"", "'DejaVu Sans', sans-serif\"")
    markup = markup.replace("'DejaVu Sans';", "'DejaVu Sans', sans-serif;")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', markup)
    size = f' width="{box[1]}pt" height="{box[2]}pt"' if box else ""
    opening = f'<svg xmlns="http://www.w3.org/2000/svg"{size} style="background: #fff"'
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + markup.replace("<svg", opening, 1) + "\n"


def zipped(files: Mapping[str, bytes]) -> bytes:
    """The files as a ZIP archive whose bytes depend on nothing but them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _BEGINNING)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, compresslevel=9)
    return buffer.getvalue()


def data_link(content: bytes, kind: str) -> str:
    """A link that holds the content itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
