"""The code that runs on a node, in the node's own Python environment.

The deployer copies this package to the node unchanged, so it never imports pulumi, `gridup_infra`
or `gridup`. `services` and `render` need only the standard library, because the deployer
imports them too, in its own environment.
"""
