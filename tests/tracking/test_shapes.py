"""Fields in little text come back as they were."""

import math

from bbi_lightning.tracking.shapes import Shapes


def test_values_come_back_as_they_were_whatever_shape_they_share():
    shapes = Shapes()
    runs = [{"a": value, "b": "x"} for value in (1, 1.0, True, "1", [1], [1.0], math.inf, "ü", 0.1, -0.0)]
    packed = [shapes.pack(fields) for fields in runs]
    assert len({digest for digest, _ in packed}) == 1
    again = Shapes(shapes.new)
    assert repr(list(again.unpack(packed))) == repr(runs)
    assert math.isnan(next(again.unpack([again.pack({"a": math.nan, "b": "x"})]))["a"])
    (digest,) = shapes.new
    assert digest not in Shapes({digest: shapes.new[digest].replace("x", "y")})
