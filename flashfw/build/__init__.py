"""What `flashfw build` makes of a project: pinned dependencies, layers, a release."""
