"""The engine: what happens on the loop. Nothing here is public; faces: aio/, blocking/."""
