//! Files of an archive, chosen and placed as `COPY` of a Dockerfile does. Hostile input: nothing of it touches the disk.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Cursor, Read as _},
    ops::Range,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use globset::GlobBuilder;
use indexmap::{IndexMap, IndexSet};
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType, Header};

use super::dockerignore::DockerIgnore;
use crate::github::uses::inside;

/// Bytes of a build's context, of what one stage copies from another, and of what one instruction copies.
pub(super) const CONTEXT: usize = 128 << 20;
/// Sources of one instruction.
const SOURCES: usize = 256;
/// Bytes that an archive takes for an entry at least.
const BLOCK: usize = 512;

/// Files below one folder.
pub(super) struct BuildContext {
    bytes: Bytes,
    entries: Vec<ContextEntry>,
    /// The entries by their paths.
    sorted: Vec<usize>,
}

#[derive(Clone)]
struct ContextEntry {
    /// Below the folder; empty: the folder or the single file itself.
    path: String,
    kind: EntryType,
    mode: u32,
    /// Of symbolic links.
    target: Option<String>,
    data: Range<usize>,
}

/// Where copied files go: a folder, and what is unpacked there.
pub(super) struct CopyPlan {
    pub(super) folder: String,
    /// Absolute paths of what was copied, without what is below a copied folder.
    pub(super) tops: IndexSet<String>,
    bytes: Bytes,
    /// By their paths below the folder.
    files: IndexMap<String, ContextEntry>,
}

/// What of a context was chosen, once each.
struct Chosen<'c> {
    /// By paths below the target.
    files: IndexMap<String, &'c ContextEntry>,
    /// Bytes that they take in an archive.
    size: usize,
}

impl<'c> Chosen<'c> {
    fn add(&mut self, path: &str, entry: &'c ContextEntry) -> Result<(), String> {
        let data = |entry: &ContextEntry| entry.data.len();
        // A later source writes over an earlier one.
        if let Some(known) = self.files.insert(path.to_owned(), entry) {
            self.size = self.size - data(known) + data(entry);
        } else {
            self.size += BLOCK + path.len() + data(entry);
        }
        match self.size <= CONTEXT {
            true => Ok(()),
            false => Err(format!("one instruction may copy {} MiB", CONTEXT >> 20)),
        }
    }
}

impl BuildContext {
    /// Reads an archive whose names begin with that of its one file or folder, but not the entries below `without`.
    pub(super) fn read(bytes: Vec<u8>, without: &str) -> io::Result<Self> {
        let mut entries: Vec<ContextEntry> = Vec::new();
        // Hard links name what came before them.
        let mut files: HashMap<String, Range<usize>> = HashMap::new();
        let mut archive = Archive::new(Cursor::new(&bytes));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let whole = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Some(path) =
                whole.trim_end_matches('/').split_once('/').map_or(Some(String::new()), |(_, p)| inside(p))
            else {
                continue;
            };
            if !without.is_empty() && path.split('/').next() == Some(without) {
                continue;
            }
            let link = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
            let mode = entry.header().mode()?;
            let start = usize::try_from(entry.raw_file_position()).map_err(io::Error::other)?;
            let (kind, data, target) = match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let end = start.saturating_add(usize::try_from(entry.size()).map_err(io::Error::other)?);
                    // Read to its end, so that a cut archive is an error here.
                    io::copy(&mut entry.by_ref(), &mut io::sink())?;
                    (EntryType::Regular, start..end, None)
                }
                EntryType::Link => {
                    let of = link.unwrap_or_default();
                    let of = of.split_once('/').map_or("", |(_, path)| path);
                    (EntryType::Regular, files.get(of).cloned().unwrap_or_default(), None)
                }
                EntryType::Symlink => (EntryType::Symlink, 0..0, link),
                EntryType::Directory => (EntryType::Directory, 0..0, None),
                _ => continue,
            };
            files.entry(path.clone()).or_insert_with(|| data.clone());
            entries.push(ContextEntry { path, kind, mode, target, data });
        }
        let mut context = Self { bytes: bytes.into(), entries, sorted: Vec::new() };
        context.sort();
        Ok(context)
    }

    fn sort(&mut self) {
        self.sorted = (0..self.entries.len()).collect();
        self.sorted.sort_by_key(|index| self.entries.get(*index).map(|entry| &entry.path));
    }

    /// Entries whose paths begin with a text, in the order of the archive.
    fn beginning(&self, text: &str) -> impl Iterator<Item = &ContextEntry> {
        let path = |index: &usize| self.entries.get(*index).map_or("", |entry| entry.path.as_str());
        let from = self.sorted.partition_point(|index| path(index) < text);
        let begin =
            self.sorted.get(from..).unwrap_or_default().iter().take_while(|index| path(index).starts_with(text));
        let mut found: Vec<usize> = begin.copied().collect();
        found.sort_unstable();
        found.into_iter().filter_map(|index| self.entries.get(index))
    }

    /// Leaves out what an ignore file names; folders stay that something is kept in.
    pub(super) fn leave_out(&mut self, ignore: &DockerIgnore) {
        let kept: Vec<String> = self
            .entries
            .iter()
            .filter(|entry| entry.path.is_empty() || !ignore.leaves_out(&entry.path))
            .map(|entry| entry.path.clone())
            .collect();
        let around: HashSet<&str> =
            kept.iter().flat_map(|path| path.match_indices('/').filter_map(|(end, _)| path.get(..end))).collect();
        let kept: HashSet<&str> = kept.iter().map(String::as_str).collect();
        self.entries.retain(|entry| kept.contains(entry.path.as_str()) || around.contains(entry.path.as_str()));
        self.sort();
    }

    /// It is one file, not a folder.
    pub(super) fn is_file(&self) -> bool {
        self.entries.first().is_some_and(|entry| entry.path.is_empty() && entry.kind != EntryType::Directory)
    }

    /// The text of a file.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let entry = self.entries.iter().find(|entry| entry.path == path && entry.kind == EntryType::Regular)?;
        Some(String::from_utf8_lossy(self.data(entry)).into_owned())
    }

    /// Adds everything that a build can see to a digest.
    pub(super) fn digest(&self, hash: &mut Sha256) {
        let mut entries: Vec<&ContextEntry> = self.entries.iter().collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        for entry in entries {
            for part in
                [entry.path.as_bytes(), entry.target.as_deref().unwrap_or_default().as_bytes(), self.data(entry)]
            {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.update([entry.kind.as_byte()]);
            hash.update(entry.mode.to_be_bytes());
        }
    }

    /// Chooses files by path or pattern. `is_folder`: the absolute target is one, or was written as one.
    pub(super) fn place(&self, sources: &[String], target: &str, is_folder: bool) -> Result<CopyPlan, String> {
        if sources.len() > SOURCES {
            return Err(format!("one instruction may have {SOURCES} sources"));
        }
        let is_folder = is_folder || sources.len() > 1;
        let whole = target.trim_end_matches('/');
        let (parent, own) = whole.rsplit_once('/').unwrap_or(("", ""));
        let mut chosen = Chosen { files: IndexMap::new(), size: 0 };
        let mut tops = IndexSet::new();
        let mut as_file = None;
        for source in sources {
            let pattern = inside(source).ok_or_else(|| format!("{source} lies outside of what can be copied"))?;
            let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
            let glob = glob.map_err(|error| format!("{source}: {error}"))?.compile_matcher();
            let mut found = false;
            for top in self.entries.iter().filter(|entry| entry.path == pattern || glob.is_match(&entry.path)) {
                found = true;
                if top.kind == EntryType::Directory {
                    let below = if top.path.is_empty() { String::new() } else { format!("{}/", top.path) };
                    for entry in self.beginning(&below) {
                        let Some(path) = entry.path.strip_prefix(&below).filter(|path| !path.is_empty()) else {
                            continue;
                        };
                        chosen.add(path, entry)?;
                        if !path.contains('/') {
                            tops.insert(format!("{whole}/{path}"));
                        }
                    }
                    continue;
                }
                let name = top.path.rsplit('/').next().unwrap_or_default();
                if is_folder && !name.is_empty() {
                    tops.insert(format!("{whole}/{name}"));
                    chosen.add(name, top)?;
                } else {
                    tops.insert(target.to_owned());
                    as_file = Some(top);
                }
            }
            if !found {
                return Err(format!("{source} is not there"));
            }
        }
        let bytes = self.bytes.clone();
        if let Some(file) = as_file {
            if own.is_empty() || is_folder {
                return Err(format!("{target} is no name for a file"));
            }
            let files = IndexMap::from([(own.to_owned(), file.clone())]);
            return Ok(CopyPlan { folder: format!("{parent}/"), tops, bytes, files });
        }
        let files = chosen.files.into_iter().map(|(path, entry)| (path, entry.clone())).collect();
        Ok(CopyPlan { folder: target.to_owned(), tops, bytes, files })
    }

    fn data(&self, entry: &ContextEntry) -> &[u8] {
        self.bytes.get(entry.data.clone()).unwrap_or_default()
    }
}

impl CopyPlan {
    /// The files as tar, made as it is taken: their content is that of the context.
    pub(super) fn archive(self) -> BoxStream<'static, io::Result<Bytes>> {
        let Self { bytes, files, .. } = self;
        let entries = files.into_iter().flat_map(move |(path, entry)| {
            let data = bytes.slice(entry.data.clone());
            let padding = Bytes::from(vec![0; data.len().next_multiple_of(BLOCK) - data.len()]);
            [head(&path, &entry, data.len()), Ok(data), Ok(padding)]
        });
        // Two empty blocks end an archive, an empty one too.
        let end = std::iter::once(Ok(Bytes::from_static(&[0; 2 * BLOCK])));
        let pieces = entries.chain(end);
        futures::stream::iter(pieces.filter(|piece| !piece.as_ref().is_ok_and(Bytes::is_empty))).boxed()
    }
}

/// What stands before the content of a file.
fn head(path: &str, entry: &ContextEntry, length: usize) -> io::Result<Bytes> {
    let mut header = Header::new_gnu();
    header.set_entry_type(entry.kind);
    header.set_mode(entry.mode);
    let mut archive = tar::Builder::new(Vec::new());
    match &entry.target {
        Some(target) => {
            header.set_size(0);
            archive.append_link(&mut header, path, target)?;
        }
        None => {
            header.set_size(length as u64);
            archive.append_data(&mut header, path, io::empty())?;
        }
    }
    let mut head = archive.into_inner()?;
    head.truncate(head.len().saturating_sub(2 * BLOCK));
    Ok(head.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tree(files: &[(&str, &str)]) -> BuildContext {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_entry_type(if path.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        BuildContext::read(archive.into_inner().unwrap(), ".git").unwrap()
    }

    fn placed(
        tree: &BuildContext,
        sources: &[&str],
        target: &str,
        is_folder: bool,
    ) -> Result<(String, Vec<String>), String> {
        let sources: Vec<_> = sources.iter().map(|source| (*source).to_owned()).collect();
        let plan = tree.place(&sources, target, is_folder)?;
        let folder = plan.folder.clone();
        let pieces: Vec<_> = futures::executor::block_on(plan.archive().collect::<Vec<_>>());
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap()).collect();
        let mut archive = Archive::new(Cursor::new(bytes));
        let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        Ok((folder, names.collect()))
    }

    #[test]
    fn files_are_placed_as_copy_does() {
        let tree = tree(&[
            ("a/", ""),
            ("a/.git/", ""),
            ("a/.git/config", "x"),
            ("a/one.sh", "1"),
            ("a/two.sh", "2"),
            ("a/sub/", ""),
            ("a/sub/deep.txt", "3"),
        ]);
        assert_eq!(tree.text("sub/deep.txt").as_deref(), Some("3"));
        assert_eq!(tree.text(".git/config"), None);
        let of =
            |folder: &str, names: &[&str]| Ok((folder.to_owned(), names.iter().map(|n| (*n).to_owned()).collect()));
        assert_eq!(placed(&tree, &["./one.sh"], "/entry.sh", false), of("/", &["entry.sh"]));
        assert_eq!(placed(&tree, &["one.sh"], "/bin", true), of("/bin", &["one.sh"]));
        assert_eq!(placed(&tree, &["*.sh"], "/x/", true), of("/x/", &["one.sh", "two.sh"]));
        assert_eq!(placed(&tree, &["sub"], "/x", false), of("/x", &["deep.txt"]));
        assert_eq!(placed(&tree, &["."], "/x", false), of("/x", &["one.sh", "two.sh", "sub", "sub/deep.txt"]));
        for source in ["../x", "absent", "/../../etc/passwd"] {
            assert!(placed(&tree, &[source], "/x", false).is_err(), "{source}");
        }
    }
    #[test]
    fn what_an_ignore_file_names_can_be_copied_by_no_name() {
        let mut tree = tree(&[
            ("a/", ""),
            ("a/Dockerfile", "FROM x"),
            ("a/secret", "x"),
            ("a/data/", ""),
            ("a/data/drop", "x"),
            ("a/data/keep", "y"),
            ("a/empty/", ""),
        ]);
        tree.leave_out(&DockerIgnore::read("*\n!data/keep\n").unwrap());
        assert_eq!(placed(&tree, &["."], "/x", true).unwrap().1, ["data", "data/keep"]);
        for source in ["secret", "Dockerfile", "data/drop", "empty"] {
            assert!(placed(&tree, &[source], "/x/", true).is_err(), "{source}");
        }
    }

    #[test]
    fn attack_36_what_is_copied_is_copied_once_and_no_more_than_a_context_may_hold() {
        let large = "x".repeat(CONTEXT / 4);
        let tree =
            tree(&[("a/", ""), ("a/one/", ""), ("a/one/two/", ""), ("a/one/two/large", &large), ("a/big", &large)]);
        assert_eq!(placed(&tree, &["big"; 60], "/x/", true).unwrap().1, ["big"]);
        let plan = tree.place(&["big".into(), "one".into()], "/x/", true).unwrap();
        assert!(plan.files.values().all(|file| file.data.len() <= large.len()) && plan.bytes.len() < CONTEXT);
        // Every folder above it is another place for it.
        assert_eq!(placed(&tree, &["**"], "/x/", true).unwrap_err(), "one instruction may copy 128 MiB");
        assert!(placed(&tree, &["big"; SOURCES + 1], "/x/", true).is_err());
    }

    #[test]
    fn attack_36_many_folders_and_links_take_no_square_of_their_number() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |path: String, kind: EntryType| {
            let mut header = Header::new_gnu();
            header.set_mode(0o755);
            header.set_entry_type(kind);
            header.set_size(0);
            match kind {
                EntryType::Link => archive.append_link(&mut header, path, "a/last").unwrap(),
                _ => archive.append_data(&mut header, path, io::empty()).unwrap(),
            }
        };
        for number in 0..20_000 {
            add(format!("a/{number}/"), EntryType::Directory);
        }
        add("a/last".into(), EntryType::Regular);
        for number in 0..20_000 {
            add(format!("a/link{number}"), EntryType::Link);
        }
        let began = std::time::Instant::now();
        let tree = BuildContext::read(archive.into_inner().unwrap(), "").unwrap();
        assert_eq!(tree.place(&["*".into()], "/x/", true).unwrap().files.len(), 20_001);
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }
}
