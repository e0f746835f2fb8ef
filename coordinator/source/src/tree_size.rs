//! How much a commit's files are once they are written, found without writing them. A tree may name one object a million
//! times: a few kilobytes of objects stand for terabytes of files.

use std::collections::HashMap;

use git2::{ObjectType, Oid, Repository};

use super::objects;

/// What a tree may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeLimits {
    /// Files and folders.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Folders below one another.
const DEPTH: usize = 256;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct TreeSize {
    entries: u64,
    bytes: u64,
    depth: usize,
}

/// Why a commit's files are not written: `None` where they may be.
///
/// # Errors
/// Objects are missing or can't be read.
pub(super) fn excess(repository: &Repository, commit: &str, limits: TreeLimits) -> Result<Option<String>, git2::Error> {
    let root = objects::commit(repository, Oid::from_str(commit)?)?.tree_id();
    let mut known: HashMap<Oid, TreeSize> = HashMap::new();
    // Each tree once, those below before the one above: no recursion, whatever the depth.
    let mut open = vec![root];
    while let Some(&id) = open.last() {
        if known.contains_key(&id) {
            open.pop();
            continue;
        }
        let tree = objects::tree(repository, id)?;
        let below = |kind| tree.iter().filter(move |entry| entry.kind() == Some(kind)).map(|entry| entry.id());
        let missing: Vec<Oid> = below(ObjectType::Tree).filter(|id| !known.contains_key(id)).collect();
        if open.len() + missing.len() > usize::try_from(limits.entries).unwrap_or(usize::MAX) {
            return Ok(Some(format!("it has more than {} files and folders", limits.entries)));
        }
        if !missing.is_empty() {
            open.extend(missing);
            continue;
        }
        let mut size = TreeSize { entries: tree.len() as u64, ..TreeSize::default() };
        for id in below(ObjectType::Tree) {
            let inner = known.get(&id).copied().unwrap_or_default();
            size.entries = size.entries.saturating_add(inner.entries);
            size.bytes = size.bytes.saturating_add(inner.bytes);
            size.depth = size.depth.max(inner.depth.saturating_add(1));
        }
        let headers = repository.odb()?;
        for id in below(ObjectType::Blob) {
            let bytes = headers.read_header(id).map_or(0, |(bytes, _)| bytes as u64);
            size.bytes = size.bytes.saturating_add(bytes);
        }
        if size.entries > limits.entries {
            return Ok(Some(format!("it has more than {} files and folders", limits.entries)));
        }
        if size.bytes > limits.bytes {
            return Ok(Some(format!("its files have more than {} MiB", limits.bytes >> 20)));
        }
        if size.depth > DEPTH {
            return Ok(Some(format!("its folders are more than {DEPTH} deep")));
        }
        known.insert(id, size);
        open.pop();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const LIMITS: TreeLimits = TreeLimits { entries: 1000, bytes: 1 << 20 };
    const FILE: i32 = 0o100_644;
    const FOLDER: i32 = 0o040_000;

    fn tree(repository: &Repository, names: usize, object: Oid, mode: i32) -> Oid {
        let mut builder = repository.treebuilder(None).unwrap();
        for number in 0..names {
            builder.insert(format!("{number}"), object, mode).unwrap();
        }
        builder.write().unwrap()
    }

    fn judge(repository: &Repository, tree: Oid) -> Option<String> {
        let author = git2::Signature::new("A", "a@example.org", &git2::Time::new(0, 0)).unwrap();
        let tree = repository.find_tree(tree).unwrap();
        let commit = repository.commit(None, &author, &author, "m", &tree, &[]).unwrap();
        excess(repository, &commit.to_string(), LIMITS).unwrap()
    }

    #[test]
    fn attack_47_a_few_objects_that_stand_for_a_disk_full_of_files_are_counted_before_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let small = repository.blob(b"x").unwrap();
        let large = repository.blob(&vec![b'A'; 100_000]).unwrap();
        let flat = tree(&repository, 100, small, FILE);
        assert_eq!(judge(&repository, flat), None);
        assert_eq!(judge(&repository, tree(&repository, 5, flat, FOLDER)), None);
        // One blob under eleven names; a hundred folders of a hundred files; ten to the twentieth files out of twelve objects.
        let bytes = judge(&repository, tree(&repository, 11, large, FILE)).unwrap();
        assert_eq!(bytes, "its files have more than 1 MiB");
        let entries = judge(&repository, tree(&repository, 100, flat, FOLDER)).unwrap();
        assert_eq!(entries, "it has more than 1000 files and folders");
        let bomb =
            (0..10).fold(small, |below, level| tree(&repository, 100, below, if level == 0 { FILE } else { FOLDER }));
        assert_eq!(judge(&repository, bomb).unwrap(), entries);
        let deep = (0..300).fold(flat, |below, _| tree(&repository, 1, below, FOLDER));
        assert_eq!(judge(&repository, deep).unwrap(), "its folders are more than 256 deep");
    }
}
