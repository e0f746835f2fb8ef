//! Reads text into trees, within limits.

use std::collections::{BTreeMap, HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::{
    MergeKeys, Scalar, Span, YamlLimits, YamlNode, YamlProblem, YamlStream, YamlStyle, YamlValue,
    relax::{RelaxedText, relaxed},
    resolve::CORE,
};

/// Reads every document of a text. What can be read past a problem is: a duplicate key or a misused tag costs only
/// itself, broken syntax or a passed limit ends the reading.
pub fn read(text: &str, limits: YamlLimits, merge: MergeKeys) -> YamlStream {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > limits.bytes {
        let message = format!("the file has {} bytes; at most {} are read", text.len(), limits.bytes);
        let problem = YamlProblem { message, span: Span { line: 1, column: 1, offset: 0, length: 0 } };
        return YamlStream { problems: vec![problem], ..YamlStream::default() };
    }
    match load(text, None, limits, merge) {
        Ok(stream) => stream,
        Err(strict) => {
            let relaxed = relaxed(text).and_then(|relaxed| load(text, Some(&relaxed), limits, merge).ok());
            relaxed.unwrap_or(YamlStream { problems: strict, ..YamlStream::default() })
        }
    }
}

/// Reads a text, or what was written anew in its place. The error is what stopped the reading, behind what was found
/// before.
fn load(
    text: &str,
    relaxed: Option<&RelaxedText>,
    limits: YamlLimits,
    merge: MergeKeys,
) -> Result<YamlStream, Vec<YamlProblem>> {
    let mut loader = Loader {
        parser: Parser::new_from_str(relaxed.map_or(text, |relaxed| &relaxed.text)),
        cursor: Cursor { text, relaxed, chars: 0, bytes: 0 },
        limits,
        merge,
        nodes: 0,
        anchors: BTreeMap::new(),
        recursive: HashSet::new(),
        problems: Vec::new(),
    };
    let mut documents = Vec::new();
    if let Err(problem) = loader.stream(&mut documents) {
        loader.problems.push(problem);
        return Err(loader.problems);
    }
    let unused = loader.anchors.values().filter(|anchor| !anchor.used).map(|anchor| anchor.node.span).collect();
    Ok(YamlStream { documents, problems: loader.problems, unused_anchors: unused })
}

struct Loader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    cursor: Cursor<'a>,
    limits: YamlLimits,
    merge: MergeKeys,
    nodes: usize,
    /// By their numbers, in the order they were written.
    anchors: BTreeMap<usize, Anchored>,
    /// Anchors that an alias inside of their own values names.
    recursive: HashSet<usize>,
    problems: Vec<YamlProblem>,
}

struct Anchored {
    node: YamlNode,
    used: bool,
}

type Loaded<T> = Result<T, YamlProblem>;

/// Problems that are kept of one text.
const MAX_PROBLEMS: usize = 200;

impl<'a> Loader<'a> {
    fn stream(&mut self, documents: &mut Vec<YamlNode>) -> Loaded<()> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _) => {}
                (event, span) => documents.push(self.node(event, span, 0)?),
            }
        }
    }

    fn next(&mut self) -> Loaded<(Event<'a>, Span)> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, Span::default())),
            Some(Ok((event, span))) => {
                let place = self.cursor.span(&span.start, &span.end);
                Ok((event, place))
            }
            Some(Err(error)) => Err(self.syntax(&error)),
        }
    }

    fn note(&mut self, message: String, span: Span) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(YamlProblem { message, span });
        }
    }

    fn syntax(&mut self, error: &ScanError) -> YamlProblem {
        // The scanner has a bound of its own, met before ours when only its look-ahead goes deep.
        let message = match error.info() {
            "recursion limit exceeded" => {
                format!("nested more than {} levels deep", self.limits.depth)
            }
            info => format!("this is no YAML: {info}"),
        };
        let span = Span { length: 1, ..self.cursor.span(error.marker(), error.marker()) };
        YamlProblem { message, span }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Loaded<YamlNode> {
        if depth > self.limits.depth {
            let message = format!("nested more than {} levels deep", self.limits.depth);
            return Err(YamlProblem { message, span });
        }
        let (value, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(weight(&text), span)?;
                (self.scalar(text.into_owned(), style, tag.as_deref(), span), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.charge(1, span)?;
                let items = self.sequence(depth)?;
                let value = match tag.filter(|tag| !tag.is_yaml_core_schema()) {
                    Some(tag) => YamlValue::Tagged(name(&tag), items),
                    None => YamlValue::Sequence(items),
                };
                (value, anchor)
            }
            Event::MappingStart(anchor, _) => {
                self.charge(1, span)?;
                (self.mapping(depth)?, anchor)
            }
            _ => {
                return Err(YamlProblem { message: "this is no YAML: a value is missing".to_owned(), span });
            }
        };
        let node = YamlNode { span: self.with_header(&value, span), value };
        if anchor > 0 {
            self.charge_tree(&node, span)?;
            let used = self.recursive.remove(&anchor);
            self.anchors.insert(anchor, Anchored { node: node.clone(), used });
        }
        Ok(node)
    }

    /// A block begins with its `|` or `>`, where the parser says that it begins with its first line.
    fn with_header(&self, value: &YamlValue, span: Span) -> Span {
        if !matches!(value, YamlValue::Scalar(scalar) if scalar.style == YamlStyle::Block) {
            return span;
        }
        let before = self.cursor.text.get(..span.offset).unwrap_or_default().trim_end();
        let (above, line) = before.rsplit_once('\n').unwrap_or(("", before));
        let header = line.split(" #").next().unwrap_or_default();
        let Some(at) = header.rfind(['|', '>']) else { return span };
        let breaks = self.cursor.text.get(before.len()..span.offset).unwrap_or_default().matches('\n').count();
        Span {
            line: span.line.saturating_sub(breaks),
            column: header.get(..at).unwrap_or_default().chars().count() + 1,
            offset: above.len() + usize::from(!above.is_empty()) + at,
            length: 1,
        }
    }

    fn scalar(&mut self, mut text: String, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> YamlValue {
        let style = match style {
            ScalarStyle::Plain => YamlStyle::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => YamlStyle::Quoted,
            ScalarStyle::Literal | ScalarStyle::Folded => YamlStyle::Block,
        };
        // A block keeps the line break at its end, but where the file ends without one there is none to keep.
        let rest = self.cursor.text.get(span.offset.saturating_add(span.length)..).unwrap_or_default();
        if style == YamlStyle::Block && !self.cursor.text.ends_with(['\n', '\r']) && rest.trim().is_empty() {
            text.truncate(text.strip_suffix('\n').map_or(text.len(), str::len));
        }
        let scalar = Scalar { text, style, tag: tag.map(name) };
        if let Some(message) = scalar.misfit() {
            self.note(message, span);
        }
        YamlValue::Scalar(scalar)
    }

    fn sequence(&mut self, depth: usize) -> Loaded<Vec<YamlNode>> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Loaded<YamlValue> {
        let mut entries: Vec<(YamlNode, YamlNode)> = Vec::new();
        let mut merged = Vec::new();
        let mut seen = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            let is_merge = self.merge == MergeKeys::Apply && is_merge_key(&key);
            if is_merge {
                merged.push(value);
                continue;
            }
            match key.text() {
                Some(text) => match seen.get(text) {
                    Some(line) => self.note(format!("the key `{text}` is already there, in line {line}"), key.span),
                    None => {
                        seen.insert(text.to_owned(), key.span.line);
                        entries.push((key, value));
                    }
                },
                None => entries.push((key, value)),
            }
        }
        for source in merged {
            self.merge(&mut entries, &mut seen, source);
        }
        Ok(YamlValue::Mapping(entries))
    }

    /// Earlier mappings win over later ones, and the mapping's own keys over all (YAML merge key, 1.1).
    fn merge(&mut self, entries: &mut Vec<(YamlNode, YamlNode)>, seen: &mut HashMap<String, usize>, source: YamlNode) {
        match source.value {
            YamlValue::Mapping(more) => {
                for (key, value) in more {
                    if key.text().is_none_or(|text| seen.insert(text.to_owned(), key.span.line).is_none()) {
                        entries.push((key, value));
                    }
                }
            }
            YamlValue::Sequence(sources) if sources.iter().all(|item| matches!(item.value, YamlValue::Mapping(_))) => {
                for item in sources {
                    self.merge(entries, seen, item);
                }
            }
            _ => self.note("`<<` takes a mapping or a list of mappings".to_owned(), source.span),
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Loaded<YamlNode> {
        let Some(known) = self.anchors.get_mut(&anchor) else {
            self.charge(1, span)?;
            self.recursive.insert(anchor);
            self.note("this alias stands inside the very value it names".to_owned(), span);
            let nothing = Scalar { text: String::new(), style: YamlStyle::Plain, tag: None };
            return Ok(YamlNode { value: YamlValue::Scalar(nothing), span });
        };
        known.used = true;
        let node = known.node.clone();
        self.charge_tree(&node, span)?;
        Ok(node)
    }

    fn charge_tree(&mut self, node: &YamlNode, span: Span) -> Loaded<()> {
        match &node.value {
            YamlValue::Scalar(scalar) => self.charge(weight(&scalar.text), span),
            YamlValue::Sequence(items) | YamlValue::Tagged(_, items) => {
                self.charge(1, span)?;
                items.iter().try_for_each(|item| self.charge_tree(item, span))
            }
            YamlValue::Mapping(entries) => {
                self.charge(1, span)?;
                entries.iter().try_for_each(|(key, value)| {
                    self.charge_tree(key, span)?;
                    self.charge_tree(value, span)
                })
            }
        }
    }

    fn charge(&mut self, nodes: usize, span: Span) -> Loaded<()> {
        self.nodes += nodes;
        if self.nodes <= self.limits.nodes {
            return Ok(());
        }
        let message = format!("with its aliases written out the file has more than {} values", self.limits.nodes);
        Err(YamlProblem { message, span })
    }
}

/// Text is charged as well as nodes, so that aliases of one long text are bounded too.
fn weight(text: &str) -> usize {
    1 + text.len() / 256
}

fn name(tag: &Tag) -> String {
    if tag.is_yaml_core_schema() { format!("{CORE}{}", tag.suffix) } else { format!("{}{}", tag.handle, tag.suffix) }
}

fn is_merge_key(key: &YamlNode) -> bool {
    matches!(&key.value, YamlValue::Scalar(scalar) if scalar.text == "<<" && scalar.style == YamlStyle::Plain)
}

/// Turns the parser's positions in characters into bytes. It moves from the last place instead of counting from the
/// start, so that a whole file costs one pass.
struct Cursor<'a> {
    text: &'a str,
    /// What was read in place of the text.
    relaxed: Option<&'a RelaxedText>,
    chars: usize,
    bytes: usize,
}

impl Cursor<'_> {
    fn span(&mut self, start: &Marker, end: &Marker) -> Span {
        let original = |at: usize| self.relaxed.map_or(at, |relaxed| relaxed.original(at));
        let (first, last) = (original(start.index()), original(end.index()));
        let column = first.saturating_sub(original(start.index().saturating_sub(start.col())));
        let chars = last.saturating_sub(first);
        let offset = self.seek(first);
        let length = self.text.get(offset..).map_or(0, |rest| {
            // Only a label's width hangs on it: a long block need not be walked twice.
            rest.chars().take(chars.min(200)).map(char::len_utf8).sum()
        });
        Span { line: start.line(), column: column + 1, offset, length }
    }

    fn seek(&mut self, index: usize) -> usize {
        if index >= self.chars {
            let rest = self.text.get(self.bytes..).unwrap_or_default();
            for character in rest.chars().take(index - self.chars) {
                self.bytes += character.len_utf8();
                self.chars += 1;
            }
        } else {
            let before = self.text.get(..self.bytes).unwrap_or_default();
            for character in before.chars().rev().take(self.chars - index) {
                self.bytes -= character.len_utf8();
                self.chars -= 1;
            }
        }
        self.bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::format_push_string)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// YamlDotNet 5.3.0, `Scanner.cs`: `ScanToNextToken`, `UnrollIndent`, `ScanFlowScalar`.
    #[test]
    fn what_githubs_scanner_takes_beyond_the_grammar_is_read_at_its_place() {
        for (strict, lax) in [
            ("a: [x] # c\nb: 1\n", "a: [x]# c\nb: 1\n"),
            ("a: {} # c\nb: \"q\" # d\nc: 'q' #e\n", "a: {}#c\nb: \"q\"# d\nc: 'q'#e\n"),
            ("a: [x, # c\n  y]\n", "a: [x,# c\n  y]\n"),
            (
                "- run: | # c\n    echo \"[#\n   \n    two\n  b: 1\n",
                "- run: |# c\n    echo \"[#\n   \n    two\n  b: 1\n",
            ),
            ("a: |- # c\n  x: [# y\nb: \"q\" # d\n", "a: |-# c\n  x: [# y\nb: \"q\"# d\n"),
            ("o:\n  b: [\n    main,\n    dev\n  ]\nc: 1\n", "o:\n  b: [\n main,\ndev\n]\nc: 1\n"),
            ("o:\n  b: {x: 1,\n    y: 2}\n", "o:\n  b: {x: 1,\n  y: 2}\n"),
            ("s:\n  - run: \"one;\n      two\"\n", "s:\n  - run: \"one;\n two\"\n"),
            ("s:\n  - run: 'it''s\n\n      two'\n", "s:\n  - run: 'it''s\n\ntwo'\n"),
            ("e:\n  A: 1\n  'B': 2\n  C: 3\n", "e:\n  A:\t1\n  'B':\t2\n  C: \t3\n"),
            ("run: a#b\nx: [1] # c\n", "run: a#b\nx: [1]# c\n"),
            ("if: ${{ x }} # c\nx: [1] # c\n", "if: ${{ x }} # c\nx: [1]# c\n"),
            ("run: it's \"x\" [y\nx: [1] # c\n", "run: it's \"x\" [y\nx: [1]# c\n"),
        ] {
            assert_eq!(one(lax), one(strict), "{lax:?}");
        }
        let stream = read("o:\n  b: [\nmain,\n  ü# c\n ,dev]# d\nlast: 1\n", YamlLimits::default(), MergeKeys::Keep);
        assert!(stream.problems.is_empty(), "{:?}", stream.problems);
        let root = &stream.documents[0];
        let branches = root.get("o").unwrap().get("b").unwrap().items();
        let place = |node: &YamlNode| (node.span.line, node.span.column, node.span.offset);
        assert_eq!(place(&branches[0]), (3, 1, 10));
        assert_eq!(branches.last().map(|dev| (dev.span.line, dev.span.column)), Some((5, 3)));
        assert_eq!(root.get("last").map(|last| (last.span.line, last.span.column)), Some((6, 7)));
        // What is no YAML to GitHub either is told as before.
        let stream = read("a: [x\nb: }# c\n", YamlLimits::default(), MergeKeys::Keep);
        assert_eq!(stream.problems.len(), 1);
    }

    fn one(text: &str) -> serde_json::Value {
        let stream = read(text, YamlLimits::default(), MergeKeys::Apply);
        assert_eq!(stream.problems, [], "{text}");
        stream.documents.first().map(YamlNode::to_json).unwrap_or_default()
    }

    fn first_problem(text: &str) -> String {
        let stream = read(text, YamlLimits::default(), MergeKeys::Apply);
        stream.problems.first().map(|p| format!("{}:{}: {}", p.span.line, p.span.column, p.message)).unwrap_or_default()
    }

    fn refused_quickly(text: &str, because: &str) {
        let start = Instant::now();
        let problem = first_problem(text);
        assert!(problem.contains(because), "{problem}");
        assert!(start.elapsed() < Duration::from_secs(30), "took {:?}", start.elapsed());
    }

    #[test]
    fn aliases_and_merge_keys_are_written_out() {
        let text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{y: 4}, *a]}\nd: *a";
        let expected =
            json!({"a": {"x": 1, "y": 2}, "b": {"y": 3, "x": 1}, "c": {"y": 4, "x": 1}, "d": {"x": 1, "y": 2}});
        assert_eq!(one(text), expected);
        assert_eq!(one("'<<': 1"), json!({"<<": 1}));
    }

    #[test]
    fn a_block_at_the_end_of_a_file_has_a_line_break_only_where_the_file_has_one() {
        for (text, expected) in
            [("a: |\n  x\n", "x\n"), ("a: |\n  x", "x"), ("a: |-\n  x", "x"), ("a: |\n  x\nb: c", "x\n")]
        {
            let stream = read(text, YamlLimits::default(), MergeKeys::Keep);
            assert_eq!(stream.documents[0].get("a").and_then(YamlNode::text), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn places_are_lines_columns_and_bytes() {
        let text = "ä: [ö, 'x']\nb:\n  - c\n";
        let stream = read(text, YamlLimits::default(), MergeKeys::Keep);
        let root = stream.documents.first().unwrap();
        let quoted = root.get("ä").and_then(|list| list.items().get(1)).unwrap();
        assert_eq!(quoted.span, Span { line: 1, column: 8, offset: 9, length: 3 });
        let nested = root.get("b").and_then(|list| list.items().first()).unwrap();
        assert_eq!((nested.span.line, nested.span.column, nested.span.offset), (3, 5, text.find('c').unwrap()));
    }

    #[test]
    fn problems_name_their_place() {
        for (text, expected) in [
            ("a: 1\nb: 2\na: 3", "3:1: the key `a` is already there, in line 1"),
            ("a: !!int x", "1:4: `x` is no value of the type `!!int`"),
            ("a: {<<: 3}", "1:9: `<<` takes a mapping or a list of mappings"),
            ("a: &a\n  b: *a", "2:6: this alias stands inside the very value it names"),
            ("a: *b", "1:4: this is no YAML: while parsing node, found unknown anchor"),
        ] {
            assert_eq!(first_problem(text), expected, "{text}");
        }
    }

    #[test]
    fn documents_are_kept_apart() {
        let stream = read("spec: 1\n---\njob: 2\n", YamlLimits::default(), MergeKeys::Apply);
        assert_eq!(
            stream.documents.iter().map(YamlNode::to_json).collect::<Vec<_>>(),
            [json!({"spec": 1}), json!({"job": 2})]
        );
    }

    #[test]
    fn attack_08_an_alias_bomb_is_refused_in_bounded_time() {
        let mut bomb = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        refused_quickly(&bomb, "more than 200000 values");
        let long = format!("a: &a '{}'\nb: [{}]", "x".repeat(500_000), "*a, ".repeat(10_000));
        refused_quickly(&long, "more than 200000 values");
    }

    #[test]
    fn attack_08_deep_nesting_is_refused_in_bounded_time() {
        refused_quickly(&"[".repeat(500_000), "nested more than 100 levels deep");
        refused_quickly(&"{a: ".repeat(200_000), "nested more than 100 levels deep");
        refused_quickly(&"- ".repeat(200_000), "nested more than 100 levels deep");
        let anchored: String = (0..90).map(|level| format!("&a{level} [")).collect();
        refused_quickly(&format!("{anchored}{}", "x, ".repeat(300_000)), "more than 200000 values");
    }

    #[test]
    fn attack_08_a_large_file_is_refused_in_bounded_time() {
        refused_quickly(&"a: b\n".repeat(2_000_000), "at most 1048576 are read");
        refused_quickly(&"a: b\n".repeat(200_000), "already there");
        refused_quickly(&format!("[{}]", "ä,".repeat(340_000)), "more than 200000 values");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z0-9 \\n\\t:\\-\\[\\]{},&*!|>'\"#%@`?~<.$äß]{0,80}|.{0,60})") {
            read(&text, YamlLimits::default(), MergeKeys::Apply);
        }
    }
}
