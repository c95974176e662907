"""The container host: a plain Debian 13 machine of any cloud. Its first boot prepares it for a node.

`user_data` builds what the deployer sends. `host` is the program that runs on the machine. `first_boot` reads
the program's result for the deployer. The deployer runs `release` on the machine later, over ssh, to start
the node. The code here does not depend on a cloud and uses only the standard library.
"""
