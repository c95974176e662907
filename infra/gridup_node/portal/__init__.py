"""The portal: a node's web pages. Rendered on the server, without scripts or content from other hosts.

web         the pages and their routes
sessions    the users who are signed in, and tokens that prove that a form came from the portal
"""
