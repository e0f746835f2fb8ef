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
    stream.finish(&mut out);
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
        stream.finish(&mut out);
        let out = String::from_utf8(out).unwrap();
        prop_assert_eq!(&out, &masker.text(&text));
        for secret in secrets.iter().map(|s| s.trim_matches(['\r', '\n'])).filter(|s| s.len() >= SHORTEST) {
            prop_assert!(!out.contains(secret), "{:?} in {:?}", secret, out);
        }
    }
}
