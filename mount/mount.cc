// mount: being written.
