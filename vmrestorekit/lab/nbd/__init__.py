"""An NBD server on a Unix socket."""
