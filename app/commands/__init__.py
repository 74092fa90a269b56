"""Groups of commands that have a module of their own; app/cli.py mounts them."""
