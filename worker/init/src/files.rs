//! Writes, reads and makes files for steps without following what a step may have planted.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt, lchown},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::stat::Mode,
};

use crate::{
    users::User,
    wire::{CONTENT_LIMIT, File, context},
};

/// Makes a directory and its parents; those it makes belong to `user`.
pub(crate) fn make_directory(path: &Path, user: &User) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent, user)?;
    }
    match DirBuilder::new().create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.and_then(|()| own(path, user)).map_err(context(format_args!("make directory {}", path.display()))),
    }
}

/// Gives a path to `user`, unless it is this process's own already.
pub(crate) fn own(path: &Path, user: &User) -> io::Result<()> {
    if user.uid == nix::unistd::getuid().as_raw() {
        return Ok(());
    }
    lchown(path, Some(user.uid), Some(user.gid))
}

/// Writes a file anew: whatever stood at its path is replaced, not followed, and whoever reads it sees one or the other.
pub(crate) fn write(file: &File, user: &User) -> io::Result<()> {
    let path = Path::new(&file.path);
    if let Some(parent) = path.parent() {
        make_directory(parent, user)?;
    }
    let written = (|| {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = Path::new(&fresh);
        match fs::remove_file(fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh)?;
        target.write_all(&file.content)?;
        target.set_permissions(fs::Permissions::from_mode(file.mode & 0o777))?;
        own(fresh, user)?;
        fs::rename(fresh, path)
    })();
    written.map_err(context(format_args!("write {}", path.display())))
}

/// Reads regular files; others are left out. What exceeds `limit`, or the room of one message, is marked too long, and
/// has its first bytes.
pub(crate) fn read(paths: &[String], limit: u64) -> Vec<File> {
    let mut room = CONTENT_LIMIT as u64;
    let mut files = Vec::new();
    for path in paths {
        let limit = limit.min(room);
        let Some(mut content) = read_one(path, limit) else { continue };
        let too_long = content.len() as u64 > limit;
        content.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        room = room.saturating_sub(content.len() as u64);
        files.push(File { path: path.clone(), content, too_long, ..File::default() });
    }
    files
}

/// One byte more than the limit tells that there are more.
fn read_one(path: &str, limit: u64) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    open(Path::new(path)).ok()?.take(limit.saturating_add(1)).read_to_end(&mut content).ok()?;
    Some(content)
}

/// Opens the regular file that a path leads to, links followed, if it lies below `base` (which holds no links). It is
/// walked to name by name without following any: what a step swaps for a link meanwhile leads nowhere. `None`: it does
/// not lie there, or is there no longer.
pub(crate) fn open_below(base: &Path, path: &Path) -> io::Result<Option<fs::File>> {
    let Ok(real) = path.canonicalize() else { return Ok(None) };
    let Ok(names) = real.strip_prefix(base) else { return Ok(None) };
    let opened: io::Result<fs::File> = (|| {
        let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut at = open_at(AT_FDCWD, base.as_os_str(), folder)?;
        let mut names = names.iter().peekable();
        while let Some(name) = names.next() {
            at = open_at(at.as_fd(), name, if names.peek().is_some() { folder } else { file })?;
        }
        let file = fs::File::from(at);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    })();
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(Errno::ENOENT as i32)) {
            Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR => Ok(None),
            _ => Err(error),
        },
    }
}

fn open_at(at: BorrowedFd<'_>, name: &OsStr, flags: OFlag) -> io::Result<OwnedFd> {
    Ok(openat(at, name, flags, Mode::empty())?)
}

/// Opens a regular file. A link could lead to our own descriptors, a pipe could hold us for ever.
pub(crate) fn open(path: &Path) -> io::Result<fs::File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}
