// native_index: being written.
