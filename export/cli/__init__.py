"""The command line of `mtl-edge export`: options in, a request, and the tables that are printed."""
