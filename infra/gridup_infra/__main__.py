"""The entry of plain `pulumi up`: the stack's configuration -> a spec -> its resources."""

from __future__ import annotations

import pulumi

from gridup_infra.errors import GridupError
from gridup_infra.program import main

try:
    main()
except GridupError as error:
    # Pulumi shows this one as a line; of any other it shows the traceback.
    raise pulumi.RunError(" ".join(part for part in (error.message, error.suggestion) if part)) from None
