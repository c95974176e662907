"""What the tests of the contracts share."""

from support.inside import inside

__all__ = ["inside"]
