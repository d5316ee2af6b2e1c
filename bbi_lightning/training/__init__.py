"""All that touches a Lightning Trainer: composing a config, and training, logging and resuming a run."""
