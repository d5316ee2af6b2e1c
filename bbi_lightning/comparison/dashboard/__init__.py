"""A sweep's comparison in W&B, made by code.

summary        our numbers as one run
specification  what is to be shown, as plain values      content   the sections, the same for every sweep
report         the same in words, for report.md          views     the same as wandb-workspaces objects
service        the account, reached or not               push      bring W&B to it
check          read W&B's numbers back
"""
