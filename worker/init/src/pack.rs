//! `longshore-init pack`: what patterns match, as tar on the standard output, with the rights of whoever runs it.
//!
//! Devices, pipes and sockets are left out; nothing outside of what the patterns name is entered through links.

use std::{
    fs::{self, Metadata},
    io::{self, Read, Write},
    path::Path,
};

use tar::{Builder, EntryType, Header};

use crate::{files, glob, wire::context};

/// Exit code where nothing matched.
pub(crate) const NOTHING: u8 = 3;

/// `files PATTERN…`: the contents of files, links followed; `tree PATTERN…`: folders and links too. Patterns are
/// absolute. False: nothing matched.
pub(crate) fn run(words: &[String]) -> io::Result<bool> {
    let usage = || io::Error::other("usage: longshore-init pack files|tree PATTERN…");
    let (mode, patterns) = words.split_first().ok_or_else(usage)?;
    let tree = match mode.as_str() {
        "files" => false,
        "tree" => true,
        _ => return Err(usage()),
    };
    let mut archive = Builder::new(io::BufWriter::with_capacity(256 << 10, io::stdout().lock()));
    let mut found = false;
    glob::find(Path::new("/"), patterns, &mut |path, data| {
        let added = add(&mut archive, path, data, tree).map_err(context(path.display()))?;
        found |= added;
        Ok(())
    })?;
    archive.into_inner()?.flush()?;
    Ok(found)
}

fn add(archive: &mut Builder<impl Write>, path: &Path, data: &Metadata, tree: bool) -> io::Result<bool> {
    let name = path.strip_prefix("/").unwrap_or(path);
    let kind = data.file_type();
    if tree && kind.is_dir() {
        archive.append_dir(name, path)?;
        return Ok(true);
    }
    if tree && kind.is_symlink() {
        let mut header = Header::new_gnu();
        header.set_metadata(data);
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, name, fs::read_link(path)?)?;
        return Ok(true);
    }
    let Some(file) = files::open_below(Path::new("/"), path)? else { return Ok(false) };
    let data = file.metadata()?;
    let mut header = Header::new_gnu();
    header.set_metadata(&data);
    let mut content = file.take(data.len());
    archive.append_data(&mut header, name, &mut content)?;
    if content.limit() > 0 {
        return Err(io::Error::other("the file became shorter while it was read"));
    }
    Ok(true)
}
