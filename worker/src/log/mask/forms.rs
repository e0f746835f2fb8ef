//! The forms in which a secret turns up in output.

use std::collections::HashSet;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use zeroize::Zeroize as _;

use super::SHORTEST;

/// Shorter encoded pieces would hit ordinary text. Bytes.
const SHORTEST_ENCODED: usize = 6;
/// Characters of base64 beside which the uncertain ones around a value are known.
const NEIGHBOURS: usize = 16;
/// GitHub's runner: parts of a value around PowerShell's colour codes, and values in quotes, only from these lengths.
const SHORTEST_SECTION: usize = 6;
const SHORTEST_QUOTED: usize = 9;

/// A text that is masked.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Form {
    text: Secret,
    /// Of base64, which may be wrapped: the first place where a group of four characters begins.
    group_start: Option<usize>,
}

impl Form {
    pub(super) fn text(&self) -> &[u8] {
        &self.text.0
    }

    pub(super) fn group_start(&self) -> Option<usize> {
        self.group_start
    }
}

/// Bytes that are overwritten when they are not needed any more.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Secret(Vec<u8>);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Every form of a secret that is masked. `secret` is neither empty nor framed by line ends. `None`: they have more than
/// `limit` bytes together.
pub(super) fn of(secret: &str, limit: usize) -> Option<HashSet<Form>> {
    let mut forms = Forms { found: HashSet::new(), room: Some(limit) };
    forms.value(secret);
    if secret.contains(['\n', '\r']) {
        let lines: Vec<_> = secret.split(['\n', '\r']).filter(|line| !line.is_empty()).collect();
        forms.push(lines.join("\n"));
        forms.push(lines.join("\r\n"));
        for line in lines {
            forms.value(line);
            forms.room?;
        }
    }
    forms.room.map(|_| forms.found)
}

struct Forms {
    found: HashSet<Form>,
    /// Bytes that more of them may have; `None`: there are too many.
    room: Option<usize>,
}

impl Forms {
    fn push(&mut self, text: impl Into<Vec<u8>>) {
        self.insert(text.into(), None);
    }

    fn insert(&mut self, text: Vec<u8>, group_start: Option<usize>) {
        let form = Form { text: Secret(text), group_start };
        let length = form.text().len();
        if length >= SHORTEST && !self.found.contains(&form) {
            self.room = self.room.and_then(|room| room.checked_sub(length));
            if self.room.is_some() {
                self.found.insert(form);
            }
        }
    }

    fn value(&mut self, value: &str) {
        self.push(value);
        let trimmed = value.trim();
        self.push(trimmed);
        if trimmed.len() < SHORTEST {
            return;
        }
        self.base64(value.as_bytes());
        self.push(hex::encode(value));
        self.push(hex::encode_upper(value));
        self.url(value);
        self.escapes(value);
        self.quotes(value);
        self.sections(value);
    }

    /// Base64 of the value at each place it may have in a longer text. The bytes around it are not known there. What the
    /// value alone decides is one form; the characters beside it, of which it decides a part, are forms with a few of
    /// their neighbours. At most four bits of its first and of its last byte stay.
    fn base64(&mut self, value: &[u8]) {
        // How many bytes of the value stand in the group that other bytes begin.
        for skipped in [0, 1, 2] {
            let Some((begun, bytes)) = value.split_at_checked(skipped).filter(|(_, bytes)| !bytes.is_empty()) else {
                continue;
            };
            // Characters that the value alone decides: each holds 6 bits.
            let decided = bytes.len() * 8 / 6;
            let ends_at = (decided / 4 * 4).saturating_sub(NEIGHBOURS);
            let group: Vec<u8> = std::iter::repeat_n(0, 3 - skipped).chain(begun.iter().copied()).collect();
            for engine in [&STANDARD, &URL_SAFE] {
                let encoded = engine.encode(bytes);
                let known = encoded.get(..decided).unwrap_or_default();
                let bare = encoded.trim_end_matches('=');
                for form in [known, bare.get(ends_at..).unwrap_or_default(), encoded.get(ends_at..).unwrap_or_default()]
                {
                    self.encoded(form, 0);
                }
                // Of the last byte of the group one character is decided, of the last two bytes two.
                let group = engine.encode(&group);
                if let Some(before) = group.get(group.len() - skipped..).filter(|before| !before.is_empty()) {
                    let beside = known.get(..NEIGHBOURS).unwrap_or(known);
                    self.encoded(&format!("{before}{beside}"), before.len());
                }
            }
        }
    }

    fn encoded(&mut self, form: &str, group_start: usize) {
        if form.len() >= SHORTEST_ENCODED {
            self.insert(form.into(), Some(group_start));
        }
    }

    fn url(&mut self, value: &str) {
        let encode = |keep: fn(u8) -> bool, space: &str, upper: bool| {
            value.bytes().fold(String::new(), |mut text, byte| {
                if keep(byte) {
                    text.push(char::from(byte));
                } else if byte == b' ' {
                    text.push_str(space);
                } else if upper {
                    text.push_str(&format!("%{byte:02X}"));
                } else {
                    text.push_str(&format!("%{byte:02x}"));
                }
                text
            })
        };
        // RFC 3986's unreserved characters; JavaScript's encodeURIComponent and encodeURI; HTML forms.
        let strict = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        let component = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~!'()*".contains(&byte);
        let whole = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~!'()*;/?:@&=+$,#".contains(&byte);
        let path = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
        for upper in [true, false] {
            for keep in [strict, component, whole, path] as [fn(u8) -> bool; 4] {
                self.push(encode(keep, "%20", upper));
            }
            self.push(encode(strict, "+", upper));
        }
    }

    fn escapes(&mut self, value: &str) {
        // A JSON string without its quotes; with `/` or what is not ASCII escaped, as some writers do.
        if let Ok(json) = serde_json::to_string(value) {
            let json = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
            self.push(json);
            self.push(json.replace('/', "\\/"));
            self.push(ascii(json));
            // JSON within JSON.
            self.push(json.replace('\\', "\\\\").replace('"', "\\\""));
            // .NET's and PHP's writers escape these too.
            let angles = json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
            self.push(angles.replace('\'', "\\u0027"));
            self.push(angles);
        }
        let xml = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        self.push(xml.replace('"', "&quot;").replace('\'', "&apos;"));
        self.push(xml.replace('"', "&quot;").replace('\'', "&#39;"));
        self.push(xml.replace('"', "&#34;").replace('\'', "&#39;"));
        self.push(xml.replace('"', "&quot;").replace('\'', "&#x27;"));
        self.push(xml.replace('"', "&quot;"));
        self.push(xml);
    }

    fn quotes(&mut self, value: &str) {
        // Inside quotes of sh; by `printf %q`; in PowerShell's and YAML's single quotes; in cmd's double ones.
        self.push(value.replace('\'', "'\\''"));
        self.push(value.replace('\'', "'\"'\"'"));
        self.push(value.replace('\'', "\\'"));
        self.push(value.replace('\'', "''"));
        self.push(value.replace('"', "\"\""));
        self.push(value.replace('"', "\\\""));
        let within = |special: &str| {
            value.chars().fold(String::new(), |mut text, character| {
                if special.contains(character) {
                    text.push('\\');
                }
                text.push(character);
                text
            })
        };
        self.push(within("\\\"$`"));
        self.push(within(" !\"#$&'()*,;<=>?[\\]^`{|}~"));
        self.push(within(" !\"#$&'()*;<>?[\\]^`{|}~"));
        self.push(within(" !\"$&'()*,;<>?[\\]^`{|}"));
        if value.len() >= SHORTEST_QUOTED
            && let Some(bare) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))
        {
            self.push(bare);
        }
    }

    /// PowerShell prints a command that failed in parts, colour codes between them, parted at the last `&`, or at the
    /// first `&+` with one more character (GitHub's runner).
    fn sections(&mut self, value: &str) {
        let sections = match value.find("&+") {
            Some(at) => {
                let (before, after) = value.split_at(at + 2);
                let mut rest = after.chars();
                rest.next();
                [before, rest.as_str()]
            }
            None => match value.rfind('&') {
                Some(at) => {
                    let (before, after) = value.split_at(at + 1);
                    [before, after]
                }
                None => return,
            },
        };
        for section in sections {
            if section.len() >= SHORTEST_SECTION {
                self.push(section);
            }
        }
    }
}

/// JSON text with everything beyond ASCII as `\uXXXX`.
fn ascii(json: &str) -> String {
    json.chars().fold(String::new(), |mut text, character| {
        if character.is_ascii() {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
        text
    })
}
