// siphash: being written.
