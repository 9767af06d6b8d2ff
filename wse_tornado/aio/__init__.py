"""The Tornado-native flavour: everything on the caller's own loop."""
