// index_builder: being written.
