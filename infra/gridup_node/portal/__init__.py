"""The portal: what people see of a node in a browser. Server-rendered, no script, nothing from elsewhere.

web         the pages and their routes
sessions    who is signed in, and proof that a form is ours
throttle    what slows down those who guess passwords
"""
