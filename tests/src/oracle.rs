//! What other programs make of our events and logs, written from their description and apart from the product.

pub mod act_log;
