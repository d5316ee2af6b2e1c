"""Tags and notes: none is lost, whoever writes at the same time."""

import multiprocessing

import pytest

from bbi_lightning.tracking.annotations import Annotations, change_annotations, read_annotations


def test_annotations_are_kept_whoever_writes_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("fork")

    def add(tag):
        change_annotations(tmp_path, lambda said: Annotations((*said.tags, tag), said.note))

    processes = [context.Process(target=add, args=(f"t{number:02}",)) for number in range(12)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert read_annotations(tmp_path).tags == tuple(f"t{number:02}" for number in range(12))
    with pytest.raises(ValueError, match="is no word"):
        add("two words")
