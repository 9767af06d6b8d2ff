"""The blocking flavour: thin, typed methods over the async core, on a loop thread.

No logic of the protocol lives here; what is here is about threads and waiting.
"""
