//! Which Node.js runs the actions of a job.

/// The Node.js that runs the actions of a job.
#[derive(Debug, Clone, Default)]
pub(in crate::job) struct NodeProgram {
    /// Where the worker's own lies in the machine, once it was needed.
    pub(super) brought: Option<String>,
    /// What it calls itself, once it was asked: `v20.19.2`.
    pub(super) version: Option<String>,
}

impl NodeProgram {
    /// What a step in the background found out holds for all.
    pub(in crate::job) fn merge(&mut self, other: Self) {
        self.brought = self.brought.take().or(other.brought);
        self.version = self.version.take().or(other.version);
    }

    /// Whether an action asks for a newer one, by its `using:`.
    pub(super) fn is_older_than(&self, using: &str) -> bool {
        let number = |text: &str, mark: char| text.strip_prefix(mark)?.split('.').next()?.parse::<u32>().ok();
        let wanted = using.strip_prefix("node").and_then(|version| version.parse::<u32>().ok());
        let found = self.version.as_deref().and_then(|version| number(version, 'v'));
        wanted.zip(found).is_some_and(|(wanted, found)| found < wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_program_is_known_by_the_number_that_it_says() {
        for (version, using, older) in [
            ("v20.19.2", "node24", true),
            ("v20.19.2", "node20", false),
            ("v24.0.0", "node20", false),
            ("v9.1.0", "node12", true),
            ("nonsense", "node24", false),
        ] {
            let node = NodeProgram { brought: None, version: Some(version.to_owned()) };
            assert_eq!(node.is_older_than(using), older, "{version} {using}");
        }
    }
}
