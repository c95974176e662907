"""The guard: what stands before syft and the portal, and lets through what its tables allow."""
