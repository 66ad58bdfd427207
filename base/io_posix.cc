// io_posix: being written.
