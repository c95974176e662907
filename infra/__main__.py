"""The entry of plain `pulumi up`: the stack's configuration -> a spec -> its resources."""

from __future__ import annotations

from gridup_infra.program import main

main()
