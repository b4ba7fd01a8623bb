//! Device trees: the host's, which is read, and the guest's, which is made.
