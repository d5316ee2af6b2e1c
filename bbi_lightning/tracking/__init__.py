"""Runs as data: run folders, metric logs, W&B, statistics and reports. Imports nothing of ours."""
