// dagstore: being written.
