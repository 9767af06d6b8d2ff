"""How fast this library is beside its peers, and whether it holds up under load.

``python -m benchmarks`` compares, ``python -m benchmarks.load`` loads one server; both print what
they find. Nothing here is imported by the library.
"""
