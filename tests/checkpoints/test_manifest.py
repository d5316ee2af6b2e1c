"""A manifest: read back as it was written, or not believed."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbi_lightning.checkpoints.manifest import FORMAT, FileRecord, Manifest, NewerFormatError, Note, _seal

MANIFEST = Manifest(
    number=7,
    step=120,
    epoch=3,
    reasons=("last", "best"),
    values={"val/acc": 0.97},
    world_size=2,
    run="digits-cnn-bbi-0123456789-s0",
    saved="2026-01-01T00:00:00+00:00",
    files={"state.pt": FileRecord(3456, "ab" * 32), "shards/__0_0.distcp": FileRecord(1, "cd" * 32)},
)


def sealed(**changes: object) -> bytes:
    content = json.loads(MANIFEST.to_bytes()) | changes
    del content["seal"]
    return json.dumps({**content, "seal": _seal(content)}).encode()


@given(
    number=st.integers(1, 10**7),
    step=st.integers(0, 10**9),
    reasons=st.lists(st.sampled_from(["last", "best", "milestone"]), unique=True).map(tuple),
    values=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    run=st.text(),
    layout=st.sampled_from(["whole", "sharded"]),
)
def test_is_read_back_as_it_was_written(number, step, reasons, values, run, layout):
    written = Manifest(
        number=number,
        step=step,
        epoch=0,
        reasons=reasons,
        values=values,
        run=run,
        layout=layout,
        saved="",
        files=MANIFEST.files,
    )
    assert Manifest.from_bytes(written.to_bytes()) == written


def test_keeps_a_value_that_is_not_a_number():
    read = Manifest.from_bytes(Manifest(**{**vars(MANIFEST), "values": {"val/loss": math.nan}}).to_bytes())
    assert math.isnan(read.values["val/loss"])


def test_no_flipped_bit_is_believed():
    content = MANIFEST.to_bytes().rstrip()
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            try:
                read = Manifest.from_bytes(bytes(flipped))
            except ValueError:
                continue
            assert read == MANIFEST, f"byte {place}, bit {bit}"  # white space may differ


@pytest.mark.parametrize("length", range(0, len(MANIFEST.to_bytes()) - 2, 7))
def test_no_truncated_manifest_is_believed(length):
    with pytest.raises(ValueError, match=r"manifest\.json"):
        Manifest.from_bytes(MANIFEST.to_bytes()[:length])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\x00", "is damaged"),
        (b"[]", "is not a checkpoint's manifest"),
        (b'{"format": "1"}', "is not a checkpoint's manifest"),
        (b'{"format": 1}', "its seal is broken"),
        (sealed(files=None), "is incomplete"),
        (sealed(files={"state.pt": {"bytes": 1}}), "is incomplete"),
        (sealed(files={"../state.pt": {"bytes": 1, "sha256": ""}}), "outside the checkpoint"),
        (sealed(files={"/etc/passwd": {"bytes": 1, "sha256": ""}}), "outside the checkpoint"),
        (sealed(reasons=["whim"]), "whim"),
    ],
)
def test_says_what_is_wrong_with_it(content, words):
    with pytest.raises(ValueError, match=words):
        Manifest.from_bytes(content)


def test_a_later_format_is_told_from_damage():
    with pytest.raises(NewerFormatError, match=f"has format {FORMAT + 1}, .* update bbi_lightning"):
        Manifest.from_bytes(sealed(format=FORMAT + 1))


def test_a_note_takes_known_reasons_only():
    with pytest.raises(ValueError, match="has whim: use last, best, milestone"):
        Note(step=1, epoch=0, reasons=("last", "whim"))
