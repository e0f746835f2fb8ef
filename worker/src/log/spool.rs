//! Keeps encoded records on disk until they are durable elsewhere.
