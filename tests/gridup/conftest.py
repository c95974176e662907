"""What the tests of the command line share."""

from support.inside import inside

__all__ = ["inside"]
