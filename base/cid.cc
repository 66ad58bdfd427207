// cid: being written.
