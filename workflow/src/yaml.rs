//! YAML text to a tree in which every node knows its place, style and tag.
//!
//! The tree keeps scalars as they were written; [`Scalar::resolve`] gives them meaning by the YAML 1.2 core schema.
//! Size, depth and the number of nodes after aliases are bounded, so that no text costs more than its [`Limits`].

mod load;
mod resolve;

pub use load::read;

/// Bounds on one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text.
    pub bytes: usize,
    /// Collections inside collections.
    pub depth: usize,
    /// Nodes of the whole tree, the copies that anchors and aliases make included. Long text counts as several.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 20, depth: 100, nodes: 200_000 }
    }
}

/// What to do with the key `<<`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeKeys {
    /// Put the mappings it names into the mapping it stands in; keys written there win (GitLab).
    Apply,
    /// Leave it as a key (GitHub does not know merge keys).
    Keep,
}

/// A place in the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Offset of the first byte.
    pub offset: usize,
    /// Bytes.
    pub length: usize,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its content.
    pub value: Value,
    /// Where it stands; for a collection, where it begins.
    pub span: Span,
}

/// The content of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text, a number, a boolean or nothing.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order they were written.
    Mapping(Vec<(Node, Node)>),
    /// A sequence under a tag of its own, such as GitLab's `!reference [job, key]`.
    Tagged(String, Vec<Node>),
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// In quotes, single or double.
    Quoted,
    /// A `|` or `>` block.
    Block,
}

/// A scalar as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// Text, with quotes and indentation taken off.
    pub text: String,
    /// How it was written.
    pub style: Style,
    /// Its tag, for example `!!str`.
    pub tag: Option<String>,
}

/// What a text holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stream {
    /// Its documents; none where it could not be read at all.
    pub documents: Vec<Node>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// Something wrong in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub message: String,
    /// Where.
    pub span: Span,
}

impl Node {
    /// The scalar's text as written, or `None` for a collection.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The entries of a mapping; empty for anything else.
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a sequence; empty for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// Whether this is a scalar that means nothing: empty, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.resolve().is_null())
    }

    /// The node by the core schema. Keys become text; a tagged sequence becomes a plain one.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Scalar(scalar) => scalar.resolve(),
            Value::Sequence(items) | Value::Tagged(_, items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(entries) => serde_json::Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.text().unwrap_or_default().to_owned(), value.to_json()))
                    .collect(),
            ),
        }
    }
}
