"""The Pulumi programs of Gridup: they provision a node on any target.

Code in this package never prints, prompts or exits. It raises the errors of `gridup_infra.errors`, and the
caller (the command line, plain Pulumi, a test) decides what to show. It never imports `gridup`.
"""

__version__ = "0.1.0"
