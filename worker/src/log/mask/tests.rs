#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use proptest::prelude::*;

use super::*;

fn masker(secrets: &[&str]) -> Masker {
    let masker = Masker::default();
    masker.add_all(secrets.iter().copied());
    masker
}

#[test]
fn attack_21_every_encoding_of_a_secret_is_masked() {
    let secret = r#"p@ss "w0rd" & <tok>'en'/+?~"#;
    let masker = masker(&[secret]);
    for shown in [
        secret.to_owned(),
        r#"p@ss \"w0rd\" & <tok>'en'/+?~"#.into(),
        "p%40ss%20%22w0rd%22%20%26%20%3Ctok%3E%27en%27%2F%2B%3F~".into(),
        "p%40ss+%22w0rd%22+%26+%3Ctok%3E%27en%27%2F%2B%3F~".into(),
        "p@ss &quot;w0rd&quot; &amp; &lt;tok&gt;&apos;en&apos;/+?~".into(),
        r#"p@ss "w0rd" & <tok>'\''en'\''/+?~"#.into(),
        hex::encode(secret),
        hex::encode_upper(secret),
    ] {
        assert_eq!(masker.text(&format!("[{shown}]")), "[***]", "{shown}");
    }
    use base64::Engine as _;
    for before in ["", "a", "ab"] {
        for after in ["", "z", "zz", "zzz"] {
            for engine in [base64::engine::general_purpose::STANDARD, base64::engine::general_purpose::URL_SAFE] {
                let shown = masker.text(&engine.encode(format!("{before}{secret}{after}")));
                let start = shown.find(MASK).expect("masked");
                assert!(start <= 4 && shown.len() - start <= 3 + 9, "{before:?} {after:?}: {shown}");
            }
        }
    }
}

#[test]
fn attack_22_each_line_of_a_secret_is_masked() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----\n";
    let masker = masker(&[key]);
    assert_eq!(masker.text(key), "***\n");
    assert_eq!(masker.text(&key.replace('\n', "\r\n")), "***\r\n");
    assert_eq!(masker.text("  MIIEvQIBADAN\n  BgkqhkiG9w0B\n"), "  ***\n  ***\n");
    assert_eq!(masker.text("one MIIEvQIBADAN two"), "one *** two");
}

#[test]
fn attack_23_a_secret_written_byte_by_byte_is_masked() {
    let masker = masker(&["hunter22"]);
    let mut stream = MaskStream::default();
    let mut out = Vec::new();
    for byte in b"a hunter21, a hunter22." {
        stream.push(&masker, &[*byte], &mut out);
        assert!(!out.ends_with(b"h") && !out.ends_with(b"hunter2"), "held back while it may become a secret");
    }
    stream.finish(&masker, &mut out);
    assert_eq!(out, b"a hunter21, a ***.");
}

#[test]
fn attack_24_overlapping_secrets_are_covered() {
    assert_eq!(masker(&["aab", "abc"]).text("xaabcx"), "x***x");
    assert_eq!(masker(&["abab"]).text("xababab"), "x***");
    assert_eq!(masker(&["aab"]).text("aaabaab"), "a***");
}

#[test]
fn attack_26_short_values_are_not_masked_and_said() {
    let masker = Masker::default();
    assert_eq!(masker.add(""), MaskOutcome::Empty);
    assert_eq!(masker.add("\n"), MaskOutcome::Empty);
    assert_eq!(masker.add("1"), MaskOutcome::TooShort);
    assert_eq!(masker.add("abc"), MaskOutcome::Masked);
    assert_eq!(masker.text("1 abc 1"), "1 *** 1");
}

#[test]
fn a_prompt_comes_out_at_once() {
    let masker = masker(&["sesame-street"]);
    let mut stream = MaskStream::default();
    let mut out = Vec::new();
    stream.push(&masker, b"password: ", &mut out);
    assert_eq!(out, b"password: ");
    assert!(!stream.holds());
}

#[test]
fn a_secret_added_late_covers_what_is_held() {
    let masker = masker(&["abcdef"]);
    let mut stream = MaskStream::default();
    let mut out = Vec::new();
    stream.push(&masker, b"abc", &mut out);
    assert_eq!(out, b"");
    masker.add("bcxyz");
    stream.push(&masker, b"xyz.", &mut out);
    assert_eq!(out, b"a***.");
}

/// As `base64 -w` and MIME wrap it.
fn wrapped(text: &str, columns: usize, line_end: &str) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    let lines: Vec<_> = encoded.as_bytes().chunks(columns).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join(line_end)
}

#[test]
fn attack_21_wrapped_base64_of_a_secret_is_masked_wherever_its_lines_end() {
    let secret = "correct-horse-battery-staple/".repeat(5);
    let masker = masker(&[&secret]);
    for columns in [64, 76] {
        for line_end in ["\n", "\r\n"] {
            for before in 0..columns {
                let text = format!("{}{secret} and more behind it", "x".repeat(before));
                let shown = masker.text(&wrapped(&text, columns, line_end));
                let known = (before + 3) * 4 / 3 + 2 + 36 + 4 * line_end.len();
                assert!(shown.contains(MASK) && shown.len() < known + 8, "{columns} {before}: {shown}");
            }
        }
    }
    let whole = masker.text(&format!("[{}\n]", wrapped(&secret, 76, "\n")));
    assert_eq!(whole, "[***\n]");
}

#[test]
fn attack_21_base64_with_a_prefix_shows_no_byte_of_a_secret() {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let masker = masker(&["Zaq12wsxCde3", "not-this-one"]);
    for before in ["user:", "user:x", "user:xy"] {
        for after in ["", "@", "@h", "@ho"] {
            let shown = masker.text(&engine.encode(format!("{before}Zaq12wsxCde3{after}")));
            let (start, end) = (shown.find(MASK).unwrap(), shown.len() - shown.find(MASK).unwrap() - MASK.len());
            // What only the text around it decides, and one character that it decides a part of.
            assert!(start <= before.len() * 8 / 6 + 1, "{before} {after}: {shown}");
            assert!(end <= (after.len() * 8 + 4).div_ceil(6) + 2, "{before} {after}: {shown}");
        }
    }
    assert_eq!(masker.text("dXNlcjpaYXExMndzeENkZTM="), "dXNlcjp***");
}

#[test]
fn line_ends_that_no_encoder_makes_end_the_search() {
    let masker = masker(&["correct-horse-battery-staple"]);
    let mut stream = MaskStream::default();
    let mut out = Vec::new();
    stream.push(&masker, b"Y29ycmVj", &mut out);
    stream.push(&masker, &[b'\n'; 10_000], &mut out);
    assert!(!stream.holds());
    assert_eq!(out.len(), 10_008);
}

#[test]
fn attack_36_masks_cost_what_they_are_long_in_sum_and_have_a_bound() {
    let began = std::time::Instant::now();
    let masker = Masker::default();
    let text = |number: usize, length: usize| format!("{number:06}{}", "<&'\"%>".repeat(length / 6));
    let long: Vec<_> = (0..12).map(|number| masker.add(&text(number, 60_000))).collect();
    assert!(long.contains(&MaskOutcome::OverLimit));
    assert_eq!(masker.add(&"x".repeat(LONGEST + 1)), MaskOutcome::OverLimit);
    let masker = Masker::default();
    let many: Vec<_> = (0..6000).map(|number| masker.add(&text(number, 24))).collect();
    assert_eq!((many.first(), many.last()), (Some(&MaskOutcome::Masked), Some(&MaskOutcome::OverLimit)));
    assert_eq!(masker.add(&text(0, 24)), MaskOutcome::Masked, "what is masked already costs nothing");
    assert_eq!(masker.text(&text(0, 24)), MASK);
    assert!(masker.known.read().forms_size <= FORMS);
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

#[test]
fn attack_36_masks_that_end_with_each_other_need_no_more_memory_than_others() {
    let masker = Masker::default();
    for length in 3..1000 {
        masker.add(&"a".repeat(length));
    }
    for first in "bcdefg".chars() {
        masker.add(&format!("{first}{}", "a".repeat(60_000)));
    }
    assert_eq!(masker.text(&format!("b{}", "a".repeat(60_000))), MASK);
    let (automaton, _) = masker.current();
    assert!(automaton.memory() < 200 << 20, "{}", automaton.memory());
}

#[test]
fn attack_36_masks_that_come_one_by_one_are_not_put_together_for_ever() {
    let masker = Masker::default();
    masker.add("the first one");
    masker.finds("x");
    // As after thousands of others.
    masker.known.write().rebuilt = REBUILT - 1000;
    let added = (0..100).map(|number| {
        let outcome = masker.add(&format!("value {number}"));
        masker.finds("x");
        outcome
    });
    let added: Vec<_> = added.collect();
    assert_eq!((added.first(), added.last()), (Some(&MaskOutcome::Masked), Some(&MaskOutcome::OverLimit)));
    assert_eq!(masker.text("the first one"), MASK);
}

#[test]
fn attack_25_colours_within_a_secret_are_not_seen_through_as_the_docs_say() {
    let masker = masker(&["sesame-street"]);
    assert_eq!(masker.text("se\x1b[31msame-street"), "se\x1b[31msame-street");
    assert_eq!(masker.text("\x1b[31msesame-street\x1b[0m"), "\x1b[31m***\x1b[0m");
    let docs = include_str!("../../../../docs/secrets.md");
    assert!(docs.contains("terminal colours"));
}

#[test]
fn forms_that_are_not_masked_are_those_that_the_docs_list() {
    let masker = masker(&["sesame-street"]);
    let docs = include_str!("../../../../docs/secrets.md");
    for (name, shown) in [
        ("reversed", "teerts-emases"),
        ("upper or lower case", "SESAME-STREET"),
        ("base32", "ONSXGYLNMUWXG5DSMVSXI==="),
        ("base64 of base64", "YzJWellXMWxMWE4wY21WbGRBPT0="),
        ("UTF-16", "s\0e\0s\0a\0m\0e\0-\0s\0t\0r\0e\0e\0t\0"),
        ("compressed", "H4sIAAAAAAAA"),
    ] {
        assert_eq!(masker.text(shown), shown);
        assert!(docs.contains(name), "{name}");
    }
}

proptest! {
    #[test]
    fn masking_does_not_depend_on_chunks_and_leaves_no_secret(
        secrets in proptest::collection::vec("[ab\\n&]{3,6}", 1..4),
        text in "[abc\\n&]{0,60}",
        cuts in proptest::collection::vec(0usize..60, 0..8),
    ) {
        let masker = masker(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        cuts.push(text.len());
        let (mut stream, mut out, mut from) = (MaskStream::default(), Vec::new(), 0);
        for cut in cuts {
            stream.push(&masker, &text.as_bytes()[from..cut], &mut out);
            from = cut;
        }
        stream.finish(&masker, &mut out);
        let out = String::from_utf8(out).unwrap();
        prop_assert_eq!(&out, &masker.text(&text));
        for secret in secrets.iter().map(|s| s.trim_matches(['\r', '\n'])).filter(|s| s.len() >= SHORTEST) {
            prop_assert!(!out.contains(secret), "{:?} in {:?}", secret, out);
        }
    }
}
