"""Gridup's command line: the part that users run. `gridup_infra` has the part that provisions."""
