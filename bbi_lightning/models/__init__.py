"""Image classifiers as plain modules, without pre-trained weights.

Each is made from keyword arguments: `image_shape` (channels, height, width) and `num_classes`, which
training takes from the data module, and its own. Input: float images (batch, *image_shape); output:
logits (batch, num_classes).
"""
