"""Runs while they run: what an onlooker sees of many of them at little cost. Changes nothing on the disk."""
