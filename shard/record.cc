// record: being written.
