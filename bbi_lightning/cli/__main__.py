"""`python -m bbi_lightning.cli`: what jobs run, since it takes the code that PYTHONPATH says."""

from bbi_lightning.cli import main

main()
