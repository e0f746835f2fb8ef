//! Results of tests in the XML that JUnit began and most test runners write, read within bounds: its author is a job.
//!
//! No standard describes the form. What is read is what the runners have in common: `testcase` elements, in `testsuite`
//! elements at any depth, each with `failure`, `error` or `skipped`, and with `system-out` and `system-err`. Entities that
//! a document declares are not expanded.

use std::borrow::Cow;

use encoding_rs::Encoding;
use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

use store::TestOutcome;

/// Elements that may stand in each other.
const DEPTH: usize = 64;
/// Tests of one artifact.
const TESTS: u64 = 100_000;
/// Bytes that a test takes beside its texts.
const ENTRY: usize = 64;
/// Attributes of an element that are looked at.
const ATTRIBUTES: usize = 32;
/// Characters of a name, and of a message.
const NAME: usize = 300;
const MESSAGE: usize = 1000;
/// Bytes of what a test printed, and of what its failure says.
const OUTPUT: usize = 8 << 10;

/// A test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TestCase {
    /// Its class, or the suite that it stands in.
    pub(super) suite: String,
    pub(super) name: String,
    pub(super) outcome: TestOutcome,
    pub(super) millis: Option<u64>,
    /// Why it failed, or was skipped.
    pub(super) message: String,
    /// Of one that failed: what its failure says, then what it printed.
    pub(super) output: String,
}

impl TestCase {
    fn size(&self) -> usize {
        ENTRY + self.suite.len() + self.name.len() + self.message.len() + self.output.len()
    }
}

/// The tests of one artifact.
#[derive(Debug, Default)]
pub(super) struct TestResults {
    /// Bytes that may be kept of those that failed, and as many of the others.
    room: usize,
    taken: [usize; 2],
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) passed: u64,
    pub(super) millis: u64,
    /// Those that failed, in the order of the files.
    pub(super) failures: Vec<TestCase>,
    /// The others, in the order of the files.
    pub(super) others: Vec<TestCase>,
}

/// Why a file is not read to its end.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum JUnitError {
    #[error("it is no well-formed XML: {0}")]
    Malformed(String),
    #[error("it ends within an element: what wrote it did not come to its end")]
    CutOff,
    #[error("its encoding {0:?} is not known")]
    Encoding(String),
    #[error("its elements stand in each other more than {DEPTH} deep")]
    TooDeep,
    #[error("an artifact has at most {TESTS} tests")]
    TooMany,
}

impl TestResults {
    /// None yet. `room`: bytes that may be kept of those that failed, and as many of the others; all are counted.
    pub(super) fn new(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    /// Adds the tests of a file. What stands before a mistake counts.
    pub(super) fn read(&mut self, file: &[u8]) -> Result<(), JUnitError> {
        let text = decoded(file)?;
        FileReader { results: self, suites: Vec::new(), case: None, text: None }.read(&text)
    }

    pub(super) fn total(&self) -> u64 {
        self.failed + self.skipped + self.passed
    }

    fn add(&mut self, case: TestCase) -> Result<(), JUnitError> {
        if self.total() >= TESTS {
            return Err(JUnitError::TooMany);
        }
        self.millis = self.millis.saturating_add(case.millis.unwrap_or_default());
        match case.outcome {
            TestOutcome::Failed => self.failed += 1,
            TestOutcome::Skipped => self.skipped += 1,
            TestOutcome::Passed => self.passed += 1,
        }
        let [of_failed, of_others] = &mut self.taken;
        let (list, taken) = match case.outcome {
            TestOutcome::Failed => (&mut self.failures, of_failed),
            TestOutcome::Skipped | TestOutcome::Passed => (&mut self.others, of_others),
        };
        // Once one did not fit, none of those behind it is kept: the list has no holes.
        *taken = taken.saturating_add(case.size());
        if *taken <= self.room {
            list.push(case);
        }
        Ok(())
    }
}

/// The text of an element that is being read.
enum TextOf {
    /// Of what went wrong: its beginning says most.
    Failure(String),
    /// Of what was printed: its end says most.
    Printed(String),
    /// Why it was skipped.
    Skipped(String),
}

struct FileReader<'r> {
    results: &'r mut TestResults,
    suites: Vec<String>,
    case: Option<OpenCase>,
    text: Option<TextOf>,
}

/// A test whose element is not closed.
struct OpenCase {
    case: TestCase,
    failure: String,
    printed: String,
}

impl FileReader<'_> {
    fn read(&mut self, text: &str) -> Result<(), JUnitError> {
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        reader.config_mut().allow_dangling_amp = true;
        let mut depth = 0_usize;
        loop {
            match reader.read_event().map_err(|error| JUnitError::Malformed(error.to_string()))? {
                Event::Eof if depth > 0 => return Err(JUnitError::CutOff),
                Event::Eof => return Ok(()),
                Event::Start(element) => {
                    depth += 1;
                    if depth > DEPTH {
                        return Err(JUnitError::TooDeep);
                    }
                    self.open(&element);
                }
                Event::End(element) => {
                    depth = depth.saturating_sub(1);
                    self.close(element.local_name().as_ref())?;
                }
                Event::Text(text) => self.append(&text.xml10_content()),
                Event::CData(text) => self.append(&text.xml10_content()),
                Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                    Ok(Some(character)) => self.append(character.encode_utf8(&mut [0; 4])),
                    _ => self.append(&predefined(&reference)),
                },
                Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
    }

    fn open(&mut self, element: &BytesStart<'_>) {
        let attribute = |name| attribute(element, name).unwrap_or_default();
        match element.local_name().as_ref() {
            "testsuite" => self.suites.push(cut(&attribute("name"), NAME)),
            "testcase" => {
                let class = attribute("classname");
                let suite = || self.suites.iter().rev().find(|name| !name.is_empty()).cloned().unwrap_or_default();
                let case = TestCase {
                    suite: if class.is_empty() { suite() } else { cut(&class, NAME) },
                    name: cut(&attribute("name"), NAME),
                    outcome: TestOutcome::Passed,
                    millis: millis(&attribute("time")),
                    message: String::new(),
                    output: String::new(),
                };
                self.case = Some(OpenCase { case, failure: String::new(), printed: String::new() });
            }
            kind @ ("failure" | "error" | "skipped") => {
                let Some(open) = &mut self.case else { return };
                let is_failure = kind != "skipped";
                if open.case.outcome != TestOutcome::Failed {
                    open.case.outcome = if is_failure { TestOutcome::Failed } else { TestOutcome::Skipped };
                    let said = attribute("message");
                    open.case.message = cut(if said.is_empty() { attribute("type") } else { said }.trim(), MESSAGE);
                }
                self.text =
                    Some(if is_failure { TextOf::Failure(String::new()) } else { TextOf::Skipped(String::new()) });
            }
            "system-out" | "system-err" if self.case.is_some() => self.text = Some(TextOf::Printed(String::new())),
            _ => {}
        }
    }

    fn close(&mut self, name: &str) -> Result<(), JUnitError> {
        match name {
            "testsuite" => drop(self.suites.pop()),
            "testcase" => {
                self.text = None;
                if let Some(open) = self.case.take() {
                    self.results.add(open.finish())?;
                }
            }
            "failure" | "error" | "skipped" | "system-out" | "system-err" => {
                let (Some(open), Some(text)) = (&mut self.case, self.text.take()) else { return Ok(()) };
                match text {
                    TextOf::Failure(text) => join(&mut open.failure, text.trim()),
                    TextOf::Printed(text) => join(&mut open.printed, text.trim()),
                    TextOf::Skipped(text) if open.case.message.is_empty() => {
                        open.case.message = cut(text.trim(), MESSAGE);
                    }
                    TextOf::Skipped(_) => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn append(&mut self, more: &str) {
        match &mut self.text {
            None => {}
            Some(TextOf::Failure(text) | TextOf::Skipped(text)) => {
                text.push_str(head(more, OUTPUT.saturating_sub(text.len())));
            }
            Some(TextOf::Printed(text)) => {
                text.push_str(tail(more, OUTPUT));
                // Not at each piece: each would be moved as often as there are pieces.
                if text.len() > 4 * OUTPUT {
                    *text = tail(text, OUTPUT).to_owned();
                }
            }
        }
    }
}

impl OpenCase {
    fn finish(self) -> TestCase {
        let Self { mut case, failure, printed } = self;
        if case.outcome != TestOutcome::Failed {
            return case;
        }
        if case.message.is_empty() {
            case.message = cut(failure.lines().next().unwrap_or_default().trim(), MESSAGE);
        }
        case.output = head(&failure, OUTPUT).to_owned();
        join(&mut case.output, tail(&printed, OUTPUT));
        case
    }
}

fn join(text: &mut String, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push('\n');
    }
    text.push_str(more);
    if text.len() > 4 * OUTPUT {
        text.truncate(head(text, 4 * OUTPUT).len());
    }
}

/// The text of a file: in the encoding that its first bytes or its declaration name, otherwise UTF-8. What does not fit
/// there becomes U+FFFD.
fn decoded(file: &[u8]) -> Result<Cow<'_, str>, JUnitError> {
    let encoding = match (Encoding::for_bom(file), declared_encoding(file)) {
        (Some((encoding, _)), _) => encoding,
        // What can be read as ASCII is not UTF-16, whatever it says of itself.
        (None, Some(label)) => match Encoding::for_label(&label) {
            Some(encoding) => encoding.output_encoding(),
            None => return Err(JUnitError::Encoding(cut(&String::from_utf8_lossy(&label), 40))),
        },
        (None, None) => encoding_rs::UTF_8,
    };
    Ok(encoding.decode(file).0)
}

/// What `<?xml … encoding="…"?>` says.
fn declared_encoding(file: &[u8]) -> Option<Vec<u8>> {
    let head = file.get(..file.len().min(200))?;
    let head = String::from_utf8_lossy(head);
    let declaration = head.trim_start().strip_prefix("<?xml")?.split("?>").next()?;
    let (_, after) = declaration.split_once("encoding")?;
    let label = after.trim_start().strip_prefix('=')?.trim_start().split(['"', '\'']).nth(1)?;
    Some(label.as_bytes().to_vec())
}

/// An attribute by its local name. Twice the same is no mistake here: to look for it takes long where there are many.
fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let mut attributes = element.attributes();
    attributes.with_checks(false);
    let found = attributes.take(ATTRIBUTES).flatten().find(|one| one.key.local_name().as_ref() == name)?;
    let value = found.normalized_value(XmlVersion::Implicit1_0);
    Some(value.map_or_else(|_| found.value.into_owned(), Cow::into_owned))
}

/// The five entities that XML has by itself; any other stays as it is written.
fn predefined(name: &str) -> Cow<'static, str> {
    match name {
        "amp" => "&".into(),
        "lt" => "<".into(),
        "gt" => ">".into(),
        "quot" => "\"".into(),
        "apos" => "'".into(),
        other => format!("&{other};").into(),
    }
}

/// Seconds as runners write them, `1,234.5` among them.
fn millis(text: &str) -> Option<u64> {
    let seconds: f64 = text.trim().replace(',', "").parse().ok()?;
    // Within a year; NaN is not.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0.0..3e7).contains(&seconds).then(|| (seconds * 1000.0).round() as u64)
}

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The beginning of a text, in bytes.
fn head(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    text.get(..end).unwrap_or_default()
}

/// The end of a text, in bytes.
fn tail(text: &str, bytes: usize) -> &str {
    let from = text.len().saturating_sub(bytes);
    let start = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

    use super::*;

    const ROOM: usize = 256 << 10;

    fn read(file: impl AsRef<[u8]>) -> (TestResults, Result<(), JUnitError>) {
        let mut results = TestResults::new(ROOM);
        let ended = results.read(file.as_ref());
        (results, ended)
    }

    #[test]
    fn what_runners_write_is_read() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="outer" tests="4"><testsuite name="inner">
  <testcase classname="pkg.Adds" name="one &amp; two" time="0.25"/>
  <testcase name="breaks" time="1,001.5">
    <failure message="expected &lt;2&gt;" type="AssertionError">at line 7
<![CDATA[  <stack>]]> &#x263A; &unknown;</failure>
    <system-out>said &quot;so&quot;</system-out>
  </testcase>
  <testcase name="later"><skipped>not yet</skipped></testcase>
</testsuite><testcase name="errs"><error>first line
second</error></testcase></testsuite></testsuites>"#;
        let (results, ended) = read(text);
        ended.unwrap();
        assert_eq!((results.failed, results.skipped, results.passed, results.millis), (2, 1, 1, 1_001_750));
        let [breaks, errs] = &results.failures[..] else { panic!("{results:?}") };
        assert_eq!((breaks.suite.as_str(), breaks.name.as_str()), ("inner", "breaks"));
        assert_eq!(breaks.message, "expected <2>");
        assert_eq!(breaks.output, "at line 7\n  <stack> ☺ &unknown;\nsaid \"so\"");
        assert_eq!((errs.suite.as_str(), errs.message.as_str()), ("outer", "first line"));
        assert_eq!((results.others[0].suite.as_str(), results.others[0].name.as_str()), ("pkg.Adds", "one & two"));
        assert_eq!((results.others[1].outcome, results.others[1].message.as_str()), (TestOutcome::Skipped, "not yet"));
    }

    #[test]
    fn a_mistake_ends_a_file_and_what_stood_before_it_counts() {
        let (results, ended) = read("<testsuite><testcase name='a'/><testcase name='b'></testsuite>");
        assert!(matches!(ended, Err(JUnitError::Malformed(_))), "{ended:?}");
        assert_eq!(results.total(), 1);
        let (results, ended) = read("<testsuite><testcase name='a'/><testcase name='b'>");
        assert_eq!((ended, results.total()), (Err(JUnitError::CutOff), 1));
        for other in ["", "no xml", "<html><body/></html>", "<testsuite/>"] {
            assert_eq!(read(other).0.total(), 0, "{other}");
        }
    }

    #[test]
    fn a_file_is_read_in_the_encoding_that_it_names() {
        let text = |encoding: &str| {
            format!("<?xml version='1.0' encoding='{encoding}'?><testsuite><testcase name='é'/></testsuite>")
        };
        let name = |file: &[u8]| read(file).0.others.first().map(|case| case.name.clone());
        let utf16: Vec<u8> = format!("\u{feff}{}", text("UTF-16")).encode_utf16().flat_map(u16::to_le_bytes).collect();
        let latin1: Vec<u8> = text("ISO-8859-1").chars().map(|c| u8::try_from(c).unwrap()).collect();
        for file in
            [text("utf-8").as_bytes(), "<testcase name='é'/>".as_bytes(), text("UTF-16").as_bytes(), &utf16, &latin1]
        {
            assert_eq!(name(file).as_deref(), Some("é"), "{}", String::from_utf8_lossy(file));
        }
        assert_eq!(read(text("klingon")).1, Err(JUnitError::Encoding("klingon".into())));
        assert_eq!(name(b"<testcase name='\xff'/>").as_deref(), Some("\u{fffd}"));
    }

    #[test]
    fn attack_45_a_hostile_file_costs_what_its_bytes_cost() {
        let deep = "<testsuite>".repeat(100_000);
        assert_eq!(read(&deep).1, Err(JUnitError::TooDeep));
        let many = format!("<testsuite>{}</testsuite>", "<testcase name='t'/>".repeat(100_001));
        let (results, ended) = read(&many);
        assert_eq!((ended, results.total()), (Err(JUnitError::TooMany), TESTS));
        assert!(results.others.len() <= ROOM / ENTRY, "{}", results.others.len());
        let bomb = "<!DOCTYPE r [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>
            <testsuite><testcase name='&b;'><failure message='&b;'>&b;&b;</failure></testcase></testsuite>";
        let (results, ended) = read(bomb);
        ended.unwrap();
        assert_eq!((results.failures[0].output.as_str(), results.failures[0].name.as_str()), ("&b;&b;", "&b;"));
        let attributes: String = (0..200_000).map(|number| format!(" a{number}=''")).collect();
        let (results, _) = read(format!("<testsuite><testcase{attributes} name='hidden'/></testsuite>"));
        assert_eq!(results.others[0].name, "", "only the first are looked at");
        let long = "é".repeat(1 << 20);
        let text = format!(
            "<testcase name='{long}' time='NaN'><failure message='{long}'>{long}</failure><system-out>{long}</system-out>\
             {}</testcase>",
            "<system-err>x<!-- --></system-err>".repeat(50_000)
        );
        let (results, ended) = read(&text);
        ended.unwrap();
        let case = &results.failures[0];
        assert!(case.name.chars().count() == NAME + 1 && case.message.chars().count() == MESSAGE + 1);
        assert!(case.output.len() <= 2 * OUTPUT + 1 && case.millis.is_none());
    }
}
