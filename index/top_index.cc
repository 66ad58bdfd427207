// top_index: being written.
