// multibase: being written.
