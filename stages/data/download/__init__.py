"""Data sets and weights fetched from where they are published, checked, and unpacked."""
