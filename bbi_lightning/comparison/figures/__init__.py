"""The pictures of a comparison."""

from bbi_lightning.comparison.figures.picture import AXES, SECTIONS, Picture
from bbi_lightning.comparison.figures.pictures import all_pictures, over_tasks
from bbi_lightning.comparison.figures.saving import save_figures

__all__ = ["AXES", "SECTIONS", "Picture", "all_pictures", "over_tasks", "save_figures"]
