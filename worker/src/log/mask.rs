//! Takes secrets out of output.
