// index_store: being written.
