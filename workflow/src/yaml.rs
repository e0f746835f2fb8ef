//! YAML text to a tree in which every node knows its place, style and tag.
