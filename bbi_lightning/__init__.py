"""Energy-conserving optimizers (Born-Infeld and relatives) and a platform to compare them."""

__version__ = "0.1.0"
