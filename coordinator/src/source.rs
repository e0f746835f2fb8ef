//! From a repository address to proven files at a commit.
