"""What the tests of the command line share."""

from support.inside import inside
from support.moon import moon
from support.person import person

__all__ = ["inside", "moon", "person"]
