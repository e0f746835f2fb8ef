//! Names of git refs (git docs: gitglossary, "ref").

/// Folders of branches and tags.
const FOLDERS: [&str; 2] = ["refs/heads/", "refs/tags/"];

/// Whether a full name is that of a branch or a tag.
pub fn is_branch_or_tag(reference: &str) -> bool {
    FOLDERS.iter().any(|folder| reference.starts_with(folder))
}

/// The branch that a full name refers to: `main` for `refs/heads/main`.
pub fn branch(reference: &str) -> Option<&str> {
    reference.strip_prefix(FOLDERS[0])
}

/// The short name of a branch or tag; any other name unchanged.
pub fn short_name(reference: &str) -> &str {
    FOLDERS.iter().find_map(|folder| reference.strip_prefix(folder)).unwrap_or(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_and_tags_have_short_names() {
        for (name, short, is) in [
            ("refs/heads/main", "main", true),
            ("refs/tags/v1", "v1", true),
            ("refs/pull/1/merge", "refs/pull/1/merge", false),
            ("main", "main", false),
        ] {
            assert_eq!((short_name(name), is_branch_or_tag(name)), (short, is), "{name}");
        }
        assert_eq!((branch("refs/heads/a/b"), branch("refs/tags/a")), (Some("a/b"), None));
    }
}
