// kv_memory: being written.
