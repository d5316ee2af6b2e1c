"""Resources, site profiles, arrays and durations: what they take, and what they refuse with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbi_lightning.cluster import ClusterError, Resources, Site, known_sites, load_site
from bbi_lightning.cluster.chunks import array_chunks
from bbi_lightning.cluster.durations import seconds_of, written


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"gpu": 1}, "cluster: gpu is unknown: did you mean gpus? known are nodes, devices, gpus, cpus,"),
        ({"nodes": 0}, "nodes=0 must be a whole number, 1 or more"),
        ({"nodes": True}, "nodes=True must be a whole number"),
        ({"cpus": "4"}, "cpus=4 must be a whole number"),
        ({"devices": 4, "gpus": 2}, "devices=4 processes cannot share gpus=2 on a node"),
        ({"memory": "much"}, "memory=much is not a size: write it as 64G or 4000M"),
        ({"time": "soon"}, "time=soon is not a duration: write it as 4:00:00"),
        ({"time": 14400}, "time=14400 is a bare number: put it in quotes"),  # YAML's 4:00:00
        ({"asked": 1}, "asked is unknown"),
        ({"partition": "a; rm -r /"}, "partition=a; rm -r / must be one word"),
        ({"account": "a\n#SBATCH --x"}, "must be one word"),
    ],
)
def test_wrong_resources_are_refused_in_a_sentence(data: dict[str, object], sentence: str) -> None:
    with pytest.raises(ClusterError) as error:
        Resources.read(data)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"reqeue": "never"}, "site mine: reqeue is unknown: did you mean requeue?"),
        ({"requeue": "always"}, "requeue: always is unknown: known are requeue, resubmit, never"),
        ({"defaults": {"gpu": 1}}, "site mine: defaults: gpu is unknown: did you mean gpus?"),
        ({"defaults": 3}, "defaults=3 must be a mapping"),
        ({"setup": "module load x"}, "setup=module load x must be a list of texts"),
        ({"srun": ["mpi"]}, "mpi is no option: write it as --name=value"),
        ({"max_jobs": 0}, "max_jobs=0 must be a whole number, 1 or more"),
        ({"notice": -1}, "notice=-1 must be a whole number, 0 or more"),
        ({"container": "apptainer exec"}, "has no {image}"),
        ({"lock": "none"}, "lock: none is unknown"),
    ],
)
def test_a_wrong_profile_is_refused_in_a_sentence(data: dict[str, object], sentence: str) -> None:
    with pytest.raises(ClusterError) as error:
        Site.read(data, "mine")
    assert sentence in str(error.value)


@pytest.mark.parametrize("name", known_sites())
def test_every_shipped_profile_can_be_read_and_says_what_it_is(name: str) -> None:
    assert load_site(name).description


def test_an_unknown_site_lists_the_known_ones() -> None:
    with pytest.raises(
        ClusterError, match=r"site generick is unknown: did you mean generic\? known are generic,"
    ):
        load_site("generick")


def test_a_profile_of_ones_own_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("max_jobs: 3\n")
    assert (load_site(str(file)).name, load_site(str(file)).max_jobs) == ("mine", 3)
    file.write_text("[")
    with pytest.raises(ClusterError, match="is no YAML"):
        load_site(str(file))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("4:00:00", 14400),
        ("1-0", 86400),
        ("1-2:30", 95400),
        ("1-12:00:05", 129605),
        ("UNLIMITED", None),
        ("", None),
    ],
)
def test_durations_are_slurms(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


@given(st.integers(0, 10**7))
def test_a_duration_is_read_as_it_was_written(seconds: int) -> None:
    assert seconds_of(written(seconds)) == seconds


@given(
    st.integers(0, 5000),
    st.one_of(st.none(), st.integers(0, 1500)),
    st.one_of(st.none(), st.integers(0, 6000)),
)
def test_arrays_hold_every_job_once_and_no_more_than_is_allowed(
    count: int, size: int | None, submit: int | None
) -> None:
    chunks = [
        range(int(c.split("-")[0]), int(c.split("-")[-1]) + 1) for c in array_chunks(count, size, submit)
    ]
    assert sum(map(len, chunks)) == (count if submit is None else min(count, submit))
    assert all(chunk.start == 0 and len(chunk) for chunk in chunks)
    if size is not None and size > 1:
        assert all(chunk.stop <= size - 1 for chunk in chunks)
