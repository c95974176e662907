"""What a newcomer's tests share."""

from support.latin import locales

__all__ = ["locales"]
