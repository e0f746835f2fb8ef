//! Segments, live tails, and the text for the Hive CI viewer.
