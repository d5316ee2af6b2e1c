import pytest

from bbi_lightning.tracking.durations import in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3661, "1 h 01 min"),
        (7500, "2 h 05 min"),
        (9e4, "1 d 01 h"),
        (1e6, "11 d 13 h"),
    ],
)
def test_a_duration_has_the_two_units_a_person_would_use(seconds, words):
    assert in_words(seconds) == words
