//! Bytes named by their SHA-256, and the Blossom protocol.
