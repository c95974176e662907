"""The guard: the layer before syft and the portal. It lets through only requests that its tables allow."""
