"""One module per command: it parses, asks, calls and shows. `gridup.app` registers it."""
