// kv_rocks: being written.
