"""The processes under test: small servers and clients, each as its library's author would write
it, and the light server that the clients talk to."""
