"""What runs on a node, in the node's own environment.

This package is copied to the node as it stands, so it never imports pulumi, `gridup_infra`
or `gridup`. `services` and `render` need nothing but the standard library: the deployer
imports them too, from its own environment.
"""
