// links: being written.
