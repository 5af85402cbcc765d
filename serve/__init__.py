"""Ray Serve deployments, one file each, wired in app.py."""
