"""The entry point of plain `pulumi up`: reads the spec from the stack's configuration, declares resources."""

from __future__ import annotations

import pulumi

from gridup_infra.errors import GridupError
from gridup_infra.program import main

try:
    main()
except GridupError as error:
    # Pulumi shows a RunError as one line. For any other error it shows the traceback.
    raise pulumi.RunError(" ".join(part for part in (error.message, error.suggestion) if part)) from None
