// io: being written.
