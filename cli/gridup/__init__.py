"""The command line of Gridup: what a person runs. What it provisions is in `gridup_infra`."""
