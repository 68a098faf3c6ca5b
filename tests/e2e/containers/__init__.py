"""The container image and the compose project, on a docker without a registry."""
