//! Expressions in text, evaluated with a few contexts.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use workflow::expression::{EvaluationLimits, NoHostFunctions, Object, Scope, Value, interpolate, parse, printed_in};

const CONTEXTS: &str = "${{ fromJSON('{\"github\": {\"ref\": \"refs/heads/main\", \"event\": {\"commits\": [{\"message\": \"a\"}], \
    \"n\": 1.5}}, \"env\": {\"A\": \"a\", \"EMPTY\": \"\"}, \"matrix\": {\"x\": [1, null, true]}, \"secrets\": {}}') }}";

static OBJECT: LazyLock<Object> = LazyLock::new(|| {
    let empty = Object::default();
    let scope = Scope { contexts: &empty, functions: &NoHostFunctions, limits: EvaluationLimits::default() };
    match interpolate(CONTEXTS, &scope) {
        Ok(Value::Object(object)) => (*object).clone(),
        _ => Object::default(),
    }
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = parse(text);
    let _ = printed_in(text);
    let scope = Scope { contexts: &OBJECT, functions: &NoHostFunctions, limits: EvaluationLimits::default() };
    let _ = interpolate(text, &scope);
    let _ = workflow::expression::condition(text, &scope);
});
