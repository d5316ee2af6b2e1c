"""Checkpoints as objects on a disk: written whole or not at all, verified, counted, cleared away.

`manifest`, `retention` and `store` know files and import no torch; `writer` gets a training state to the disk
in the background; `lightning_io` is the plugin for a Trainer.
"""
