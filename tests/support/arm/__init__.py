"""An emulator of Azure Resource Manager, where the account would be.

`Arm` is a server in this process: HTTPS with a CA of its own, Entra's token endpoint, and the parts of ARM,
Microsoft.Network and Microsoft.Compute that a machine on Azure needs, with state. It holds each body against
Microsoft's own models (azure-mgmt-*), refuses what Azure refuses (refusals.py has the page for each), and
takes its time where Azure does (operations.py). Nothing in it knows Gridup.

    with Arm(folder) as arm:
        arm.environment                       # what makes a process a customer of it
        arm.lasts = 0.2                       # seconds that an operation takes; `delay`: that a call does
        arm.fail("Microsoft.Compute/virtualMachines/write", "AllocationFailed", late=True, count=1)
        held = arm.hold("Microsoft.Network/publicIPAddresses/write")   # accepted, and nobody is told
        arm.rights = ("Microsoft.Network/*", ...)                      # as a role has them
        arm.world.quotas["westeurope", "cores"] = 2                    # `restricted`, `missing`: sizes
        arm.things().snapshot(), arm.things().machines()               # what there is
        [call.action for call in arm.calls]                            # who did what, and when

A customer who sends raw requests is in customer.py, bodies that Azure takes are in sites.py.
"""

from support.arm.calls import Call, Fault
from support.arm.errors import ArmError
from support.arm.server import PRINCIPAL, SUBSCRIPTION, Arm
from support.delayed_response import Held

__all__ = ["PRINCIPAL", "SUBSCRIPTION", "Arm", "ArmError", "Call", "Fault", "Held"]
