// manifests: being written.
