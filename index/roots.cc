// roots: being written.
