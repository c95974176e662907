"""One module a command: parse, ask, call, show. Registered in `gridup.app`."""
