//! The inputs of `actions/checkout`, as far as they say what is checked out.

/// What `actions/checkout` asks for.
#[derive(Debug, Clone, Default)]
pub struct CheckoutOptions {
    /// As written; empty: the job's own.
    pub repository: String,
    /// Ref or commit; empty: the job's own commit, or the other repository's default branch.
    pub reference: String,
    /// Commits of history; 0: all, with every branch and tag.
    pub depth: u32,
    /// Every tag, whatever the depth.
    pub tags: bool,
    /// Which submodules come along.
    pub submodules: SubmoduleMode,
    /// Only a part of the files.
    pub sparse: Option<SparseCheckout>,
    /// Bytes that the files may have, submodules included; 0: any number.
    pub most_bytes: u64,
    /// URL of the remote `origin` in the new repository; empty: none.
    pub remote: String,
}

/// Which submodules come along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SubmoduleMode {
    /// None of them.
    #[default]
    None,
    /// Those of the repository.
    Direct,
    /// Theirs too.
    Recursive,
}

/// Which files come along (`git sparse-checkout`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseCheckout {
    /// Folders, or patterns without `cone`; one a line.
    pub patterns: String,
    /// The patterns are folders.
    pub cone: bool,
}
