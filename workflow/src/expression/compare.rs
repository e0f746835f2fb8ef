//! Equality and order: JavaScript's loose rules, but strings without case and collections by identity.
//!
//! GitHub docs, "Operators": operands of different types are coerced to numbers, NaN compares false with everything.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Value;
use super::case_fold::fold_char;

pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::String(left), Value::String(right)) => left.chars().map(fold_char).eq(right.chars().map(fold_char)),
        (Value::Array(left), Value::Array(right)) => Arc::ptr_eq(left, right),
        (Value::Object(left), Value::Object(right)) => Arc::ptr_eq(left, right),
        _ => left.is_primitive() && right.is_primitive() && left.to_number() == right.to_number(),
    }
}

/// `None` where neither is greater: NaN, collections, nulls.
pub(super) fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Null, Value::Null) => None,
        (Value::String(left), Value::String(right)) => {
            Some(left.chars().map(fold_char).cmp(right.chars().map(fold_char)))
        }
        _ if left.is_primitive() && right.is_primitive() => left.to_number().partial_cmp(&right.to_number()),
        _ => None,
    }
}
