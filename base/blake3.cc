// blake3: being written.
