"""Energy-conserving optimizers. Needs torch and nothing else.

from bbi_lightning.optim import BBI

optimizer = BBI(model.parameters(), lr=0.2)
loss = loss_fn(model(x), y)
optimizer.zero_grad()
loss.backward()
optimizer.step(loss=loss)
"""

from bbi_lightning.optim.bbi import BBI
from bbi_lightning.optim.bi import BI
from bbi_lightning.optim.ecd import ECD
from bbi_lightning.optim.ecd_q1 import ECDq1
from bbi_lightning.optim.ecdsep import ECDSep
from bbi_lightning.optim.log_ecd import LogECD
from bbi_lightning.optim.mass_ecd import MassECD

__all__ = ["BBI", "BI", "ECD", "ECDSep", "ECDq1", "LogECD", "MassECD"]
