"""A sweep's comparison in W&B, made by code.

specification  what is to be shown, as plain values      content  the sections, the same for every sweep
summary        our numbers, as one run                   report   the same in words, for report.md
views          the same as wandb-workspaces objects      service  the account, reached or not
push           bring W&B to it                           upload   runs that W&B does not have
check          read W&B's numbers back
"""
