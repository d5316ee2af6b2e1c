import pytest
import toy_task
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from bbi_lightning.sweeps.overrides import override, trial_overrides

PRINTABLE = st.text(st.characters(exclude_categories=["Cs", "Cc"]))


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), PRINTABLE))
def test_hydra_reads_the_value_that_was_meant(value):
    if isinstance(value, str) and "${" in value:
        return  # an interpolation, on purpose
    parsed = OverridesParser.create().parse_override(override("a.b", value))
    assert parsed.key_or_group == "a.b"
    result = parsed.value()
    result = result.text if hasattr(result, "text") else result
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("value", "text"), [(1e-05, "a=1e-05"), (True, "a=true"), (None, "a=null"), ("1", "a='1'")]
)
def test_what_it_looks_like(value, text):
    assert override("a", value) == text


def test_a_trial_is_the_command_line_that_would_run_it():
    spec = toy_task.spec()
    overrides = trial_overrides(spec, spec.arm("wide"), {"x": 0.1, "y": -0.5}, seed=3)
    assert overrides == ["seconds=0", "kind=wide", "x=0.1", "y=-0.5", "seed=3"]
