"""Set-up: installs what this machine needs before anything can be deployed."""
