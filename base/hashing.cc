// hashing: being written.
