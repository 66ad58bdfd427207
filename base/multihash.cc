// multihash: being written.
