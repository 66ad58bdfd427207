// cbor: being written.
