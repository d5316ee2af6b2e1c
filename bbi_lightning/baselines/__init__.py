"""The strongest contestants that other libraries ship, fitted to any training loop.

The arithmetic is theirs: `torch.optim.Muon` and `AdamW`, Meta's `schedulefree`, `pytorch_optimizer.SAM`.
What is here makes each of them one ordinary `torch.optim.Optimizer` whose `state_dict` holds all that the
next step needs, so that it can be trained, saved, resumed bit for bit and compared like any other:

    muon             hidden matrices by Muon, everything else by AdamW
    schedule_free    AdamW and SGD without a schedule; two sets of weights, exchanged without rounding
    sam              sharpness-aware minimisation; two gradients a step
    kinds            what a training loop must know of an optimizer that is not like the others

In a Lightning Trainer, `bbi_lightning.training.baseline_passes.BaselinePasses` does what these need of it.
Nothing is imported here: each module wants its own library (``pip install 'bbi-lightning[baselines]'``).
"""
