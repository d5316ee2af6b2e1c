"""LightningDataModules for image classification and the fast paths under them.

One contract for all: `image_shape` and `num_classes` are known before anything is read; the validation
set is carved from the training set by a seeded split; the test set is read only by `setup("test")`.
The order of the training samples is a pure function of (seed, epoch) and a sample's augmentation one
of (seed, epoch, sample), so neither depends on the batch size, the number of ranks, the number of
workers or the batch at which a run was resumed.

Nothing is imported here: `bbi_lightning.data.digits` does not pay for JPEG decoding.
"""
