"""The daemon of one site."""
