//! The expression language as authors meet it: values, errors, limits, and text with expressions in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;
use workflow::expression::{
    EvaluationLimits, ExpressionError, ExpressionErrorKind, HostFunctionError, HostFunctions, Object, Scope, Value,
    check, check_condition, condition, interpolate, interpolate_text, interpolate_tree, parse,
};

/// A job that goes well: `success()` holds, `hashFiles` answers its arguments, `later()` does not know yet.
struct Host {
    success: bool,
}

impl HostFunctions for Host {
    fn call(&self, name: &str, args: &[Value]) -> Option<Result<Value, HostFunctionError>> {
        Some(match name.to_ascii_lowercase().as_str() {
            "success" => Ok(self.success.into()),
            "failure" => Ok((!self.success).into()),
            "always" => Ok(true.into()),
            "cancelled" => Ok(false.into()),
            "hashfiles" => Ok(args.iter().map(Value::to_string).collect::<Vec<_>>().join("+").into()),
            "later" => Err(HostFunctionError::Pending),
            "broken" => Err(HostFunctionError::Failed("it is broken".into())),
            _ => return None,
        })
    }
}

const WELL: Host = Host { success: true };
const BADLY: Host = Host { success: false };

fn contexts() -> Object {
    let json = json!({
        "github": {
            "ref": "refs/heads/main",
            "event_name": "push",
            "event": {"commits": [{"author": {"name": "Ada"}}, {"author": {"name": "Bob"}}, {"id": 3}], "size": 2},
        },
        "env": {"Name": "Value", "EMPTY": "", "zero": "0"},
        "matrix": {"os": ["linux", "mac"], "n": 8, "on": true, "nothing": null, "nested": [[1, 2], [3]]},
        "needs": {"a": {"result": "success"}, "b": {"result": "failure"}, "c": {"outputs": {}}},
    });
    let Value::Object(object) = Value::from_json(&json) else { panic!("an object") };
    object.as_ref().clone()
}

fn in_scope<T>(host: &Host, limits: EvaluationLimits, use_scope: impl FnOnce(&Scope<'_>) -> T) -> T {
    use_scope(&Scope { contexts: &contexts(), functions: host, limits })
}

fn evaluate(text: &str) -> Result<Value, ExpressionError> {
    in_scope(&WELL, EvaluationLimits::default(), |scope| parse(text)?.evaluate(scope))
}

#[track_caller]
fn assert_values(table: &[(&str, serde_json::Value)]) {
    for (text, expected) in table {
        let value = evaluate(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(value.to_json(), *expected, "{text}");
    }
}

#[track_caller]
fn assert_errors(table: &[(&str, ExpressionErrorKind, &str, usize)]) {
    for (text, kind, message, position) in table {
        let error = evaluate(text).expect_err(text);
        assert_eq!((error.kind, error.position), (*kind, *position), "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}

#[test]
fn literals_are_values() {
    assert_values(&[
        ("", json!(null)),
        ("  \t\n ", json!(null)),
        ("null", json!(null)),
        ("true", json!(true)),
        ("false", json!(false)),
        ("711", json!(711)),
        ("-9.2", json!(-9.2)),
        ("+3", json!(3)),
        (".25", json!(0.25)),
        ("5.", json!(5)),
        ("0xff", json!(255)),
        ("0xFFFFFFFF", json!(-1)),
        ("0o17", json!(15)),
        ("-2.99e-2", json!(-0.0299)),
        ("1E3", json!(1000)),
        ("'Mona the Octocat'", json!("Mona the Octocat")),
        ("'It''s open source!'", json!("It's open source!")),
        ("''", json!("")),
        ("''''", json!("'")),
        ("'}} ${{ ( , .'", json!("}} ${{ ( , .")),
    ]);
}

#[test]
fn properties_are_found_without_case_and_missing_ones_are_null() {
    assert_values(&[
        ("github.ref", json!("refs/heads/main")),
        ("GitHub.REF", json!("refs/heads/main")),
        ("github['ref']", json!("refs/heads/main")),
        ("github [ 'ref' ]", json!("refs/heads/main")),
        ("github . event . size", json!(2)),
        ("env.name", json!("Value")),
        ("env.missing", json!(null)),
        ("env.missing.deeper[3].still", json!(null)),
        ("env.Name.length", json!(null)),
        ("matrix.os[0]", json!("linux")),
        ("matrix.os[1.9]", json!("mac")),
        ("matrix.os['1']", json!("mac")),
        ("matrix.os[true]", json!("mac")),
        ("matrix.os[2]", json!(null)),
        ("matrix.os[-1]", json!(null)),
        ("matrix.os['x']", json!(null)),
        ("matrix.os.linux", json!(null)),
        ("matrix[matrix.os]", json!(null)),
        ("fromJSON('{\"A\": {\"b-c\": [7]}}').a.b-c[0]", json!(7)),
        ("(matrix.os)[0]", json!("linux")),
    ]);
}

#[test]
fn filters_reach_into_every_element() {
    assert_values(&[
        ("matrix.os.*", json!(["linux", "mac"])),
        ("needs.*.result", json!(["success", "failure"])),
        ("needs[*].result", json!(["success", "failure"])),
        ("needs.*['result']", json!(["success", "failure"])),
        ("needs.*.result[0]", json!([])),
        ("github.event.commits.*.author.name", json!(["Ada", "Bob"])),
        ("github.event.commits[*].id", json!([3])),
        ("matrix.nested.*.*", json!([1, 2, 3])),
        ("matrix.nested.*[0]", json!([1, 3])),
        ("matrix.n.*", json!([])),
        ("matrix.nothing.*.a", json!([])),
        ("env.missing.*", json!([])),
        ("(false || needs.*).result", json!(["success", "failure"])),
        ("contains(needs.*.result, 'failure')", json!(true)),
        ("join(needs.*.result)", json!("success,failure")),
    ]);
}

#[test]
fn operators_follow_their_precedence_and_return_operands() {
    assert_values(&[
        ("1 && 'a'", json!("a")),
        ("0 && 'a'", json!(0)),
        ("'' || null || 'last'", json!("last")),
        ("'' || null", json!(null)),
        ("true && 'yes' || 'no'", json!("yes")),
        ("false && 'yes' || 'no'", json!("no")),
        ("false && later() || 'not asked'", json!("not asked")),
        ("true || later()", json!(true)),
        ("!true", json!(false)),
        ("!'false'", json!(false)),
        ("!!matrix.os", json!(true)),
        ("! env.empty", json!(true)),
        ("!false && false", json!(false)),
        ("!(false && false)", json!(true)),
        ("1 < 2 == true", json!(true)),
        ("1 == 1 && 2 == 2", json!(true)),
        ("true == 1 < 2", json!(true)),
        ("1 || 0 && 0", json!(1)),
        ("(1 || 0) && 0", json!(0)),
        ("((((('x')))))", json!("x")),
    ]);
}

#[test]
fn comparisons_coerce_as_github_does() {
    assert_values(&[
        ("'Hello' == 'hELLO'", json!(true)),
        ("'ß' == 'SS'", json!(false)),
        ("'Жук' == 'жУК'", json!(true)),
        ("'ſ' == 's'", json!(false)),
        ("'a' < 'B'", json!(true)),
        ("'_' > 'a'", json!(true)),
        ("'10' < '9'", json!(true)),
        ("10 < '9'", json!(false)),
        ("null == 0", json!(true)),
        ("null == ''", json!(true)),
        ("null == false", json!(true)),
        ("null >= null", json!(true)),
        ("null > null", json!(false)),
        ("true == '1'", json!(true)),
        ("true == 'true'", json!(false)),
        ("'0x10' == 16", json!(true)),
        ("' 1e2\t' == 100", json!(true)),
        ("'inf' == Infinity", json!(false)),
        ("'1_000' == 1000", json!(false)),
        ("NaN == NaN", json!(false)),
        ("NaN != NaN", json!(true)),
        ("NaN <= 1", json!(false)),
        ("-Infinity < 0", json!(true)),
        ("matrix.os == matrix.os", json!(true)),
        ("fromJSON('[]') == fromJSON('[]')", json!(false)),
        ("fromJSON('{}') == 'Object'", json!(false)),
        ("matrix.os == null", json!(false)),
        ("matrix.os >= matrix.os", json!(true)),
        ("matrix.os > 0", json!(false)),
    ]);
}

#[test]
fn numbers_become_text_with_fifteen_digits() {
    for (text, expected) in [
        ("0.1", "0.1"),
        ("-0", "0"),
        ("1e3", "1000"),
        ("123456789012345", "123456789012345"),
        ("1234567890123456", "1.23456789012346E+15"),
        ("100000000000000", "100000000000000"),
        ("1e15", "1E+15"),
        ("1e100", "1E+100"),
        ("0.0001", "0.0001"),
        ("0.00001", "1E-05"),
        ("-1.5e-7", "-1.5E-07"),
        ("0.30000000000000004", "0.3"),
        ("999999999999999.9", "1E+15"),
        ("3.00", "3"),
        ("1e999", "Infinity"),
    ] {
        assert_eq!(evaluate(&format!("format('{{0}}', {text})")).unwrap().as_text(), expected, "{text}");
    }
}

#[test]
fn functions_do_what_the_documentation_says() {
    assert_values(&[
        ("contains('Hello world', 'LLO')", json!(true)),
        ("contains(matrix.os, 'LINUX')", json!(true)),
        ("contains(matrix.os, 'lin')", json!(false)),
        ("contains(github, 'ref')", json!(false)),
        ("contains('abc', matrix.os)", json!(false)),
        ("contains(12345, 34)", json!(true)),
        ("startsWith('Hello', 'hE')", json!(true)),
        ("startsWith(matrix.os, 'A')", json!(false)),
        ("endsWith('Hello', 'LO')", json!(true)),
        ("format('Hello {0} {1} {0}', 'Mona', 2)", json!("Hello Mona 2 Mona")),
        ("format('{{Hello {0}}}', 'x')", json!("{Hello x}")),
        ("format('{0:}', 'x')", json!("x")),
        ("format('{0}{1}', null, matrix.os)", json!("Array")),
        ("format('only {1}', later(), 'this')", json!("only this")),
        ("format('{00}', 'x')", json!("x")),
        ("join(matrix.os, '; ')", json!("linux; mac")),
        ("join(matrix.os, matrix.os)", json!("linux,mac")),
        ("join(fromJSON('[1]'), later())", json!("1")),
        ("join('one', ',')", json!("one")),
        ("join(github, ',')", json!("")),
        ("toJSON('a\"\\')", json!("\"a\\\"\\\\\"")),
        ("toJSON(matrix.os)", json!("[\n  \"linux\",\n  \"mac\"\n]")),
        ("toJSON(fromJSON('{\"b\":1,\"a\":{}}'))", json!("{\n  \"b\": 1,\n  \"a\": {}\n}")),
        ("toJSON(NaN)", json!("NaN")),
        ("toJSON(1.50)", json!("1.5")),
        ("fromJSON('[true, null, 1.5e1]')", json!([true, null, 15])),
        ("fromJSON(' \"x\" ')", json!("x")),
        ("fromJSON('{\"a\": 1, \"A\": 2}').a", json!(2)),
        ("case(false, later(), 'default')", json!("default")),
        ("case(true, 'a', later(), 'b', 'c')", json!("a")),
        ("CASE(1 > 2, 'a', 2 > 1, 'b', 'c')", json!("b")),
        ("hashFiles('**/a', 'b')", json!("**/a+b")),
        ("success() && !failure()", json!(true)),
    ]);
}

#[test]
fn mistakes_are_named_where_they_are() {
    use ExpressionErrorKind::{Evaluation, Lexing, Parsing, Pending};
    assert_errors(&[
        ("\"x\"", Lexing, "Unexpected symbol: '\"x\"'. Located at position 1", 0),
        ("'open", Lexing, "Unexpected symbol: ''open'", 0),
        ("1 = 2", Lexing, "Unexpected symbol: '='", 2),
        ("a-b + 1", Lexing, "Unexpected symbol: '+'", 4),
        ("env.Name + 1", Lexing, "Unexpected symbol: '+'", 9),
        ("-x", Lexing, "Unexpected symbol: '-x'", 0),
        ("0xg", Lexing, "Unexpected symbol: '0xg'", 0),
        ("é == 😊", Lexing, "Unexpected symbol: 'é'", 0),
        ("'😊' == #", Lexing, "Located at position 9", 10),
        ("1 ==", Parsing, "Unexpected end of expression: '=='", 2),
        ("(1", Parsing, "Unexpected end of expression: '1'", 1),
        ("!", Parsing, "Unexpected end of expression: '!'", 0),
        ("env.", Parsing, "Unexpected end of expression: '.'", 3),
        ("1)", Parsing, "Unexpected symbol: ')'", 1),
        ("(1]", Parsing, "Unexpected symbol: ']'", 2),
        ("()", Parsing, "Unexpected symbol: ')'", 1),
        ("1, 2", Parsing, "Unexpected symbol: ','", 1),
        ("join((1, 2))", Parsing, "Unexpected symbol: ','", 7),
        ("env['a' 'b']", Parsing, "Unexpected symbol: ''b''", 8),
        ("env[]", Parsing, "Unexpected symbol: ']'", 4),
        ("env..a", Parsing, "Unexpected symbol: '.'", 4),
        ("'a'.b", Parsing, "Unexpected symbol: '.'", 3),
        ("* == 1", Parsing, "Unexpected symbol: '*'", 0),
        ("join()", Parsing, "Too few parameters supplied: '('", 4),
        ("toJSON(1, 2)", Parsing, "Too many parameters supplied: '('", 6),
        ("case(true, 1, 2, 3)", Parsing, "Even number of parameters", 4),
        ("always(1)", Parsing, "Too many parameters", 6),
        ("hashFiles()", Parsing, "Too few parameters", 9),
        ("unknown.thing", Parsing, "Unrecognized named-value: 'unknown'. Located at position 1", 0),
        ("true || unknown", Parsing, "Unrecognized named-value: 'unknown'", 8),
        ("1 + 1", Lexing, "Unexpected symbol: '+'", 2),
        ("nope(1)", Parsing, "Unrecognized function: 'nope'", 0),
        ("case('x', 1, 2)", Evaluation, "case predicate must evaluate to a boolean value", 0),
        ("1 == format('{0}')", Evaluation, "references more arguments than were supplied: {0}", 5),
        ("format('{256}', 1)", Evaluation, "The following format string is invalid: {256}", 0),
        ("format('{0:N}', 1)", Evaluation, "format specifiers 'N' are not valid", 0),
        ("fromJSON('')", Evaluation, "fromJSON needs JSON text", 0),
        ("fromJSON('[1] 2')", Evaluation, "fromJSON needs JSON text", 0),
        ("!broken()", Evaluation, "it is broken", 1),
        ("true && later()", Pending, "not known yet", 8),
    ]);
}

#[test]
fn an_expression_tells_what_it_uses() {
    let expression = parse("Success() && contains(github.ref, env.a) || github['x'] == hashFiles(matrix.os)").unwrap();
    assert!(expression.calls_status_function());
    assert_eq!(expression.contexts(), ["github", "env", "matrix"]);
    assert_eq!(expression.functions(), ["Success", "contains", "hashFiles"]);
    assert!(!parse("'always()' == env.always").unwrap().calls_status_function());
}

#[test]
fn a_lone_expression_keeps_its_type_and_others_become_text() {
    for (text, expected) in [
        ("plain", json!("plain")),
        ("", json!("")),
        ("${{ matrix.n }}", json!(8)),
        ("${{matrix.os}}", json!(["linux", "mac"])),
        (" ${{ matrix.n }}", json!(" 8")),
        ("${{ matrix.n }}${{ matrix.on }}", json!("8true")),
        ("a-${{ matrix.nothing }}-${{ matrix.os }}", json!("a--Array")),
        ("${{ '}}' }}", json!("}}")),
        ("${{ 'it''s }}' }}!", json!("it's }}!")),
        ("$ {{ a }} }}", json!("$ {{ a }} }}")),
        ("é ${{ env.Name }} é", json!("é Value é")),
    ] {
        let value = in_scope(&WELL, EvaluationLimits::default(), |scope| interpolate(text, scope)).unwrap();
        assert_eq!(value.to_json(), expected, "{text}");
    }
    let text = in_scope(&WELL, EvaluationLimits::default(), |scope| interpolate_text("${{ matrix.on }}", scope));
    assert_eq!(text.unwrap(), "true");
}

#[test]
fn mistakes_in_text_point_into_the_text() {
    for (text, message, position) in [
        ("a ${{ env.Name", "The expression is not closed", 2),
        ("a ${{ 'x }}", "The expression is not closed", 2),
        ("a ${{ }} b", "An expression was expected", 2),
        ("${{ env.Name }} ${{  what }}", "Unrecognized named-value: 'what'", 21),
        ("é ${{ 1 == }}", "Unexpected end of expression", 9),
    ] {
        let error = in_scope(&WELL, EvaluationLimits::default(), |scope| interpolate(text, scope)).unwrap_err();
        assert!(error.message.contains(message), "{text}: {error}");
        assert_eq!(error.position, position, "{text}");
    }
}

#[test]
fn trees_are_interpolated_deeply_and_insert_merges() {
    let tree = json!({
        "a": ["${{ matrix.n }}", {"b": "${{ env.Name }}!"}, 1, null],
        "${{ env.Name }}_DIR": "a key",
        "${{ insert }}": "${{ fromJSON('{\"x\": 1, \"A\": 2}') }}",
        "last": true,
    });
    let value = in_scope(&WELL, EvaluationLimits::default(), |scope| interpolate_tree(&tree, scope)).unwrap();
    let expected = json!({"A": 2, "Value_DIR": "a key", "x": 1, "last": true});
    assert_eq!(serde_json::to_string(&value.to_json()).unwrap(), serde_json::to_string(&expected).unwrap());
    let wrong = json!({"${{ insert }}": "${{ matrix.os }}"});
    let error = in_scope(&WELL, EvaluationLimits::default(), |scope| interpolate_tree(&wrong, scope)).unwrap_err();
    assert!(error.message.contains("needs a mapping"), "{error}");
    // A key that comes of data is that text, whatever it looks like.
    let data = json!({"${{ insert }}": "${{ fromJSON('{\"${{ env.Name }}\": 1}') }}"});
    let value = in_scope(&WELL, EvaluationLimits::default(), |scope| interpolate_tree(&data, scope)).unwrap();
    assert_eq!(value.to_json(), json!({"${{ env.Name }}": 1}));
    for (twice, part) in [
        (json!({"Value": 1, "${{ env.Name }}": 2}), "is already defined: Value"),
        (json!({"${{ env.missing }}": 2}), "is empty"),
    ] {
        let error = in_scope(&WELL, EvaluationLimits::default(), |scope| interpolate_tree(&twice, scope)).unwrap_err();
        assert!(error.message.contains(part), "{error}");
    }
}

#[test]
fn conditions_need_success_unless_they_ask_for_the_status() {
    for (text, after_success, after_failure) in [
        ("", true, false),
        ("true", true, false),
        ("false", false, false),
        ("always()", true, true),
        ("${{ always() }}", true, true),
        ("  ${{ failure() && matrix.on }}  ", false, true),
        ("failure()", false, true),
        ("!cancelled()", true, true),
        ("github.ref == 'refs/heads/main'", true, false),
        ("${{ github.ref == 'refs/heads/other' }}", false, false),
        ("env.zero", true, false),
        ("env.empty", false, false),
        ("${{ false }} || ${{ false }}", true, false),
        ("contains(needs.*.result, 'failure') && always()", true, true),
    ] {
        for (host, expected) in [(&WELL, after_success), (&BADLY, after_failure)] {
            let holds = in_scope(host, EvaluationLimits::default(), |scope| condition(text, scope));
            assert_eq!(holds.unwrap_or_else(|error| panic!("{text}: {error}")), expected, "{text}");
        }
    }
    let error = in_scope(&BADLY, EvaluationLimits::default(), |scope| condition(" ${{ no.such }}", scope)).unwrap_err();
    assert_eq!((error.kind, error.position), (ExpressionErrorKind::Parsing, 5));
}

#[test]
fn checks_know_which_names_are_allowed() {
    assert_eq!(check("x ${{ github.ref }} ${{ hashFiles(env.a) }}", &["github", "env"], &["hashFiles"]), Ok(()));
    assert_eq!(check("no marker, unknown.name", &[], &[]), Ok(()));
    let error = check("x ${{ github.ref }} ${{ secrets.a }}", &["github"], &[]).unwrap_err();
    assert_eq!((error.kind, error.position), (ExpressionErrorKind::Parsing, 24));
    let error = check("${{ hashFiles('a') }}", &[], &[]).unwrap_err();
    assert_eq!((error.message.contains("Unrecognized function: 'hashFiles'"), error.position), (true, 4));
    assert_eq!(check_condition("always() && github.x", &["github"], &["always"]), Ok(()));
    assert_eq!(check_condition("", &[], &[]), Ok(()));
    assert_eq!(check_condition(" 1 == x", &[], &[]).unwrap_err().position, 6);
}

#[test]
fn objects_keep_order_and_spelling_and_find_keys_without_case() {
    let mut object: Object = [("Zeta", 1.0), ("alpha", 2.0)].into_iter().collect();
    object.insert("ZETA", 3.0);
    let entries: Vec<_> = object.iter().map(|(key, value)| (key, value.to_number())).collect();
    assert_eq!(entries, [("ZETA", 3.0), ("alpha", 2.0)]);
    assert_eq!(object.get("zeta"), Some(&Value::Number(3.0)));
    assert_eq!((object.len(), object.is_empty()), (2, false));
}

#[test]
fn length_and_depth_are_limited() {
    let brackets = |count: usize| format!("{}1{}", "(".repeat(count), ")".repeat(count));
    assert_eq!(evaluate(&brackets(10_000)), Ok(Value::Number(1.0)));
    let operands = |count: usize| vec!["1"; count].join(" || ");
    assert_eq!(evaluate(&operands(4_000)), Ok(Value::Number(1.0)));
    for text in [
        brackets(10_500),
        format!("{}true", "!".repeat(50)),
        format!("{}true", "!".repeat(20_000)),
        format!("env{}", ".a".repeat(50)),
        format!("{}1{}", "toJSON(".repeat(50), ")".repeat(50)),
    ] {
        assert_eq!(evaluate(&text).unwrap_err().kind, ExpressionErrorKind::Limit, "{}", text.len());
    }
    assert_eq!(evaluate(&format!("{}true", "!".repeat(49))), Ok(Value::Bool(false)));
}

#[test]
fn attack_09_bombs_end_in_a_limit_and_soon() {
    let tens = "{0}".repeat(10);
    let formats = (0..12).fold("'xxxxxxxxxx'".to_owned(), |inner, _| format!("format('{tens}', {inner})"));
    let ones = format!("format('{tens}', '{}')", "1,".repeat(20));
    let list = format!("format('[{{0}}1]', format('{}', {ones}))", "{0}".repeat(3_000));
    let separator = format!("format('{}', '{}')", "{0}".repeat(90), "y".repeat(900));
    for bomb in [
        formats.clone(),
        format!("toJSON({formats})"),
        format!("join(fromJSON('[{}1]'), {separator})", "1,".repeat(900)),
        format!("fromJSON({list})"),
        format!("contains(fromJSON('[{}1]'), {separator})", "1,".repeat(900)),
        format!("fromJSON('[{}1]').*[{separator}]", "{},".repeat(900)),
    ] {
        let started = Instant::now();
        let error = evaluate(&bomb).err().unwrap_or_else(|| panic!("{bomb:.60} has a value"));
        assert_eq!(error.kind, ExpressionErrorKind::Limit, "{bomb:.60}: {error}");
        assert!(started.elapsed() < Duration::from_secs(60), "{bomb:.60} took {:?}", started.elapsed());
    }
}

#[test]
fn searching_a_large_context_many_times_is_counted() {
    let contexts: Object = [("big", Value::from("a".repeat(1_000_000)))].into_iter().collect();
    let text = vec!["contains(big, 'b')"; 900].join(" || ");
    let scope = Scope { contexts: &contexts, functions: &WELL, limits: EvaluationLimits::default() };
    let error = parse(&text).unwrap().evaluate(&scope).unwrap_err();
    assert_eq!(error.kind, ExpressionErrorKind::Limit);
    assert!(error.message.contains("evaluation steps"), "{error}");
}

#[test]
fn one_budget_serves_a_whole_tree() {
    let limits = EvaluationLimits { memory: 4_000, ..EvaluationLimits::default() };
    let leaf = format!("${{{{ format('{{0}}', '{}') }}}}", "z".repeat(300));
    let few = json!([leaf, leaf]);
    let many = json!(vec![leaf; 50]);
    assert!(in_scope(&WELL, limits, |scope| interpolate_tree(&few, scope)).is_ok());
    let error = in_scope(&WELL, limits, |scope| interpolate_tree(&many, scope)).unwrap_err();
    assert_eq!(error.kind, ExpressionErrorKind::Limit);
}

/// Text made of the language's own pieces, which gets further than arbitrary text.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "(",
        ")",
        "[",
        "]",
        ",",
        ".",
        "*",
        "!",
        "==",
        "&&",
        "||",
        "<",
        "1",
        "-.5",
        "'a'",
        "''",
        "'",
        "null",
        "true",
        "env",
        "matrix.os",
        "needs",
        ".*",
        "contains(",
        "format(",
        "'{0}'",
        "toJSON(",
        "fromJSON(",
        "case(",
        " ",
        "${{",
        "}}",
        "é",
        "0x",
        "NaN",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_panics_and_every_error_points_into_it(text in prop_oneof![any::<String>(), pieces()]) {
        for result in [
            evaluate(&text).map(drop),
            in_scope(&WELL, EvaluationLimits::default(), |scope| interpolate(&text, scope)).map(drop),
            in_scope(&WELL, EvaluationLimits::default(), |scope| condition(&text, scope)).map(drop),
            check(&text, &["env"], &[]),
            check_condition(&text, &["env"], &[]),
        ] {
            if let Err(error) = result {
                prop_assert!(text.is_char_boundary(error.position), "{text:?}: {error:?}");
            }
        }
    }

    #[test]
    fn evaluation_is_deterministic(text in pieces()) {
        prop_assert_eq!(format!("{:?}", evaluate(&text)), format!("{:?}", evaluate(&text)));
    }

    #[test]
    fn quoted_text_is_itself(text in any::<String>()) {
        let quoted = format!("'{}'", text.replace('\'', "''"));
        prop_assert_eq!(evaluate(&quoted), Ok(Value::from(text.clone())));
        let inside = format!("{{0}}{}", text.replace('{', "{{").replace('}', "}}"));
        let formatted = format!("format('{}', 'x')", inside.replace('\'', "''"));
        prop_assert_eq!(evaluate(&formatted), Ok(Value::from(format!("x{text}"))));
    }

    #[test]
    fn json_survives_a_round_trip(text in any::<String>(), number in -1e15..1e15_f64, truth: bool) {
        let json = json!({"text": text, "list": [truth, null, number.round()], "nested": {"deep": {}}});
        let contexts: Object = [("x", Value::from_json(&json))].into_iter().collect();
        let scope = Scope { contexts: &contexts, functions: &WELL, limits: EvaluationLimits::default() };
        let back = parse("fromJSON(toJSON(x))").unwrap().evaluate(&scope).unwrap();
        prop_assert_eq!(back, Value::from_json(&json));
    }

    #[test]
    fn a_number_reads_back_as_it_was_written(number in -1e14..1e14_f64) {
        let written = Value::Number(number).to_string();
        let read = Value::from(written.clone()).to_number();
        prop_assert!((read - number).abs() <= number.abs() * 1e-14, "{number} {written}");
    }
}
