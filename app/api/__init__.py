"""The HTTP interface: one file a resource, its schemas above its views."""
