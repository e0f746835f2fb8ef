//! Unpacks a tar archive below a directory.

use std::{
    fs,
    io::{self, Read},
    path::Path,
    sync::mpsc::Receiver,
};

use tar::{Archive, EntryType};

use crate::{files, users::User, wire::context};

/// An archive that arrives in pieces; an empty sender means its end.
pub(crate) struct Pieces {
    receiver: Receiver<Vec<u8>>,
    current: io::Cursor<Vec<u8>>,
}

impl Pieces {
    pub(crate) fn new(receiver: Receiver<Vec<u8>>) -> Self {
        Self { receiver, current: io::Cursor::default() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.current.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.receiver.recv() {
                Ok(piece) => self.current = io::Cursor::new(piece),
                Err(_) => return Ok(0),
            }
        }
    }
}

/// Unpacks files, directories and links; device nodes, pipes and paths that leave `directory` are refused.
pub(crate) fn unpack(input: &mut impl Read, directory: &Path, clean: bool, user: &User) -> io::Result<()> {
    files::make_directory(directory, user)?;
    if clean {
        empty(directory).map_err(context(format_args!("empty {}", directory.display())))?;
    }
    let mut archive = Archive::new(input);
    archive.set_overwrite(true);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        match entry.header().entry_type() {
            EntryType::Regular
            | EntryType::Continuous
            | EntryType::Directory
            | EntryType::Symlink
            | EntryType::Link => {}
            EntryType::XGlobalHeader => continue,
            other => return Err(refused(&path, &format!("entries of type {other:?} are not unpacked"))),
        }
        if !entry.unpack_in(directory).map_err(context(format_args!("unpack {}", path.display())))? {
            return Err(refused(&path, "the path leaves the directory"));
        }
        files::own(&directory.join(&path), user)?;
    }
    Ok(())
}

fn refused(path: &Path, cause: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{} in the archive: {cause}", path.display()))
}

fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
