"""Set-up: what must be on this machine before anything can be deployed."""
