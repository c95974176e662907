"""A real node's api process for the tests marked `node`."""

from __future__ import annotations

from support.node_process import make_node, node, node_python

__all__ = ["make_node", "node", "node_python"]
