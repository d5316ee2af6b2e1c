"""How arms look and how numbers are written: colours for all eyes, axes that can be read."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bbi_lightning.comparison.figures import pictures as figures
from bbi_lightning.comparison.figures import svg
from bbi_lightning.comparison.figures.drawing import (
    _pile,
    height,
    looks,
    write_large,
    write_value,
    zero_height,
)
from tests.comparison.drawn import compared, texts, with_batches
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep, realistic


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compared(with_batches(realistic(tmp_path_factory.mktemp("sweeps") / "digits")))


EYES = np.array([
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
])  # fmt: skip


def linear(colour):
    """Linear RGB of "#rrggbb"."""
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    """Ottosson (2020)."""
    to_cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ np.clip(rgb, 0, 1))


class TestLooks:
    def test_an_arm_looks_the_same_on_every_page(self):
        names = [type("A", (), {"name": n}) for n in ("adamw", "mine", "bbi", "other", "sgd")]
        some, few = looks(names), looks(names[2:3])
        assert some["bbi"] == few["bbi"]
        assert len({look.slot for look in some.values()}) == 5

    def test_twenty_arms_can_be_told_apart(self):
        all_of = looks([type("A", (), {"name": f"arm {i}"}) for i in range(20)])
        assert len({(look.colour, look.marker) for look in all_of.values()}) == 20
        assert len({(look.colour, str(look.dash)) for look in all_of.values()}) == 20

    @pytest.mark.parametrize(
        ("colours", "paper"),
        [(svg.LIGHT, "#ffffff"), (svg.DARK, "#15171b")],
    )
    def test_colours_stand_out_from_the_page(self, colours, paper):
        assert len(set(colours)) == len(svg.LIGHT)
        for colour in colours:
            low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (colour, paper))
            assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 1.4.11, graphics

    @pytest.mark.parametrize(("colours", "ink"), [(svg.LIGHT, svg.INK), (svg.DARK, "#e7e8ea")])
    def test_colours_are_told_apart_whatever_eyes_one_has(self, colours, ink):
        """Distances in OKLab (× 100; about 2 is just noticeable) for normal vision, protanopia, deuteranopia
        and tritanopia, the last three by Machado et al. (2009) at full severity."""
        for eyes in EYES:
            seen = np.array([oklab(eyes @ linear(colour)) for colour in (*colours, ink)])
            apart = 100 * np.linalg.norm(seen[:, None] - seen[None], axis=-1)
            assert apart[~np.eye(len(seen), dtype=bool)].min() >= 7.5

    def test_heights(self, comparison):
        assert height([0.99, 1.0], comparison.test) == pytest.approx([1.0, 0.0])
        assert height([0.5], None) == pytest.approx([0.5])
        assert zero_height([0.0, 0.4, math.nan]) == 0.2
        assert zero_height([0.0]) > 0
        assert zero_height([0.3, -0.1]) == -math.inf

    @pytest.mark.parametrize(
        ("number", "text"),
        [
            (0.153, "0.15"),
            (1.14e-5, "1.1·10⁻⁵"),
            (3e-7, "3·10⁻⁷"),
            (1e-4, "10⁻⁴"),
            (23456, "23k"),
            (0, "0"),
            (math.nan, "–"),
        ],
    )
    def test_numbers_in_sentences(self, number, text):
        assert write_value(number) == text

    @pytest.mark.parametrize(
        ("number", "text"), [(20000, "20k"), (1.5e6, "1.5M"), (9000, "9000"), (2e9, "2G"), (-30000, "−30k")]
    )
    def test_numbers_on_an_axis_of_counts(self, number, text):
        assert write_large(number) == text

    def test_a_saturated_metric_does_not_stretch_the_axes(self, tmp_path):
        """All trials at 100 %: the error is zero but for rounding, which must not become 14 decades."""
        arms = tuple(replace(arm, test_error=0.0, cliff=math.inf) for arm in ARMS[:2])
        c = compared(SyntheticSweep(tmp_path / "s", arms=arms).write())
        for picture in (figures.tuning(c), figures.validation_curve(c), *figures.sensitivities(c)):
            assert "10⁻¹" not in picture.markup

    def test_equal_values_are_piled_up_even_if_rounding_split_them(self):
        values = np.array([0.2777777, 0.2777779, 0.5555555, 0.2777778])
        assert len(set(_pile(values)[[0, 1, 3]])) == 3
        assert _pile(values)[2] == _pile(values)[0]
        assert _pile(np.array([1.0, 1.0])).tolist() != [0, 0]

    def test_a_picture_with_very_many_points_becomes_a_bitmap(self, monkeypatch, comparison):
        monkeypatch.setattr(svg, "_MAX_SVG", 2000)
        markup = figures.training_loss(comparison).markup
        assert markup.startswith('<img class="on-white" alt="')
        assert "data:image/png;base64," in markup


def test_dollars_in_a_label_are_no_formula(tmp_path):
    label = r"SGD $\frac at $0.1"  # as a formula it cannot be parsed, and no picture would be drawn
    arms = [replace(arm, label=label) if arm.name == "sgd" else arm for arm in ARMS[:3]]
    c = compared(SyntheticSweep(tmp_path / "s", arms=tuple(arms), trials=4, replicates=2, logs=False).write())
    assert label in texts(figures.outcomes(c))
