"""The program that Pulumi.yaml names for plain `pulumi`.

The entry point itself is in the package, so that it works without a checkout too.
"""

from __future__ import annotations

import gridup_infra.__main__  # noqa: F401
