// transition: being written.
