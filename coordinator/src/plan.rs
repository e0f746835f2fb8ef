//! A request and its files become a plan.
