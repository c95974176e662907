"""Where Pulumi.yaml points plain `pulumi` to; the entry is in the package, for those without a checkout."""

from __future__ import annotations

import gridup_infra.__main__  # noqa: F401
