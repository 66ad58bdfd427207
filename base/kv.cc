// kv: being written.
