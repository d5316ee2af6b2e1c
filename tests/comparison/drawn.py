"""What the tests of the pictures share: comparisons of folders, and pictures as trees."""

from xml.etree import ElementTree

from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep

SVG = "{http://www.w3.org/2000/svg}"


def compared(folder, against=None):
    return compare_sweep(read_sweep(folder), against)


def with_batches(folder, size=64):
    for run in (folder / "runs").iterdir():
        (run / "config.yaml").write_text(f"data: {{batch_size: {size}}}\n")
    return folder


def parsed(picture):
    """The picture's SVG; fails when it is not well-formed."""
    named = picture.markup.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return ElementTree.fromstring(named)


def texts(picture):
    return ["".join(node.itertext()).strip() for node in parsed(picture).iter(f"{SVG}text")]
