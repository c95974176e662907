"""The Pulumi programs of Gridup: what is provisioned, on any target.

Nothing in this package prints, prompts or exits: it raises the errors of
`gridup_infra.errors`, and the caller (the command line, plain Pulumi, a test) decides
what to show. It never imports `gridup`.
"""

__version__ = "0.1.0"
