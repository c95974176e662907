"""A node on a machine of its own, a VM: what all clouds share. Nothing here knows one of them.

A cloud makes the machine and its network and hands over its address; `resources.declare` waits for
the first boot and brings the node up over ssh. asyncssh, which comes with a cloud's extra, is
imported where it is used.
"""
