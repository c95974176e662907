"""The container host: a plain Debian 13 machine of any cloud, made ready for a node at its first boot.

`user_data` is what the deployer sends, `host` what it makes the machine run, `first_boot` how the deployer
reads what came of it. `release` is what the deployer runs there later, over ssh, to bring the node up.
Nothing here knows a cloud, and all of it is standard library.
"""
