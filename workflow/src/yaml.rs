//! YAML text to a tree in which every node knows its place, style and tag.
//!
//! The tree keeps scalars as they were written; [`Scalar::resolve`] gives them meaning by the YAML 1.2 core schema.
//! Size, depth and the number of nodes after aliases are bounded, so that no text costs more than its [`YamlLimits`].

mod load;
mod relax;
mod resolve;

pub use load::read;

/// Bounds on one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YamlLimits {
    /// Bytes of text.
    pub bytes: usize,
    /// Collections inside collections.
    pub depth: usize,
    /// Nodes of the whole tree, the copies that anchors and aliases make included. Long text counts as several.
    pub nodes: usize,
}

impl Default for YamlLimits {
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
pub struct YamlNode {
    /// Its content.
    pub value: YamlValue,
    /// Where it stands; for a collection, where it begins.
    pub span: Span,
}

/// The content of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum YamlValue {
    /// Text, a number, a boolean or nothing.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<YamlNode>),
    /// Keys and values in the order they were written.
    Mapping(Vec<(YamlNode, YamlNode)>),
    /// A sequence under a tag of its own, such as GitLab's `!reference [job, key]`.
    Tagged(String, Vec<YamlNode>),
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum YamlStyle {
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
    pub style: YamlStyle,
    /// Its tag, for example `!!str`.
    pub tag: Option<String>,
}

/// What a text holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct YamlStream {
    /// Its documents; none where it could not be read at all.
    pub documents: Vec<YamlNode>,
    /// What is wrong with it.
    pub problems: Vec<YamlProblem>,
    /// Nodes with an anchor that no alias names.
    pub unused_anchors: Vec<Span>,
}

/// Something wrong in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlProblem {
    /// What.
    pub message: String,
    /// Where.
    pub span: Span,
}

impl YamlNode {
    /// The scalar's text as written, or `None` for a collection.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            YamlValue::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The entries of a mapping; empty for anything else.
    pub fn entries(&self) -> &[(YamlNode, YamlNode)] {
        match &self.value {
            YamlValue::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a sequence; empty for anything else.
    pub fn items(&self) -> &[YamlNode] {
        match &self.value {
            YamlValue::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&YamlNode> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// Whether this is a scalar that means nothing: empty, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, YamlValue::Scalar(scalar) if scalar.resolve().is_null())
    }

    /// The node by the core schema. Keys become text; a tagged sequence becomes a plain one.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            YamlValue::Scalar(scalar) => scalar.resolve(),
            YamlValue::Sequence(items) | YamlValue::Tagged(_, items) => items.iter().map(Self::to_json).collect(),
            YamlValue::Mapping(entries) => serde_json::Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.text().unwrap_or_default().to_owned(), value.to_json()))
                    .collect(),
            ),
        }
    }
}
