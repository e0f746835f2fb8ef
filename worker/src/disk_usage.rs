//! Bytes of disk behind folders and processes that a job changes while they are looked at.

use std::{
    collections::HashSet,
    ffi::{CStr, CString},
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    dir::Dir,
    fcntl::{AtFlags, OFlag, open, openat},
    sys::{
        stat::{FileStat, Mode, SFlag, fstat, fstatat},
        statvfs::statvfs,
    },
};
use rustix::process::Pid;

/// Bytes that an entry counts for beside its blocks: a disk can be filled with nothing but names.
const ENTRY: u64 = 1024;
/// Levels of a tree whose folders are kept open; the way back from deeper ones goes through `..`, and is checked.
const HELD: usize = 64;
/// Names of folders that may wait to be looked at.
const PENDING: usize = 500_000;
/// Open files and mappings that one look goes through.
const DESCRIPTORS: usize = 200_000;
/// A file system with less room than this, or fewer files to give, is full.
const LAST_BYTES: u64 = 1 << 20;
const LAST_FILES: u64 = 16;

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

/// What a file system of its own says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Occupancy {
    pub(crate) bytes: u64,
    /// Nothing more goes in.
    pub(crate) full: bool,
}

/// Of the file system that is mounted on a folder; `None`: the folder belongs to the one around it.
pub(crate) fn of_mount(folder: &Path) -> Option<Occupancy> {
    let device = fs::symlink_metadata(folder).ok()?.dev();
    if fs::symlink_metadata(folder.parent()?).ok()?.dev() == device {
        return None;
    }
    let data = statvfs(folder).ok()?;
    let size = data.fragment_size();
    let free = data.blocks_available().saturating_mul(size);
    let (files, left) = (data.files(), data.files_available());
    let bytes = data.blocks().saturating_sub(data.blocks_free()).saturating_mul(size);
    let names = files.saturating_sub(data.files_free()).saturating_mul(ENTRY);
    let full = free < LAST_BYTES || (files > 0 && left < LAST_FILES);
    Some(Occupancy { bytes: bytes.saturating_add(names), full })
}

/// Bytes that are free for everybody where a folder lies.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let data = statvfs(folder).ok()?;
    Some(data.blocks_available().saturating_mul(data.fragment_size()))
}

/// One folder on the way down.
struct Level {
    /// Open where it is among the first [`HELD`] and not the deepest.
    folder: Option<OwnedFd>,
    id: (u64, u64),
    pending: Vec<CString>,
}

/// Bytes of all files below a folder. No link is followed, and no path is walked: a job may make one of any length, and put a
/// link in the place of a folder at any time. What it moves about while it is counted may be left out.
pub(crate) fn of_tree(root: &Path) -> u64 {
    let Ok(mut here) = open(root, FOLDER, Mode::empty()) else { return 0 };
    let mut sum = 0;
    let mut waiting = 0;
    let mut levels = Vec::new();
    levels.extend(read(&here, &mut sum));
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.pending.pop() else {
            levels.pop();
            let Some(above) = levels.last_mut() else { break };
            match above.folder.take().or_else(|| parent(&here, above.id)) {
                Some(folder) => here = folder,
                None => match held(&mut levels) {
                    Some(folder) => here = folder,
                    None => break,
                },
            }
            waiting = levels.iter().map(|level| level.pending.len()).sum();
            continue;
        };
        let Ok(below) = openat(&here, name.as_c_str(), FOLDER, Mode::empty()) else { continue };
        let Some(found) = read(&below, &mut sum) else { continue };
        waiting += found.pending.len();
        if waiting > PENDING {
            return u64::MAX;
        }
        let left = std::mem::replace(&mut here, below);
        if levels.len() < HELD
            && let Some(level) = levels.last_mut()
        {
            level.folder = Some(left);
        }
        levels.push(found);
    }
    sum
}

/// The folder above, where it is still the one that was read.
fn parent(folder: &OwnedFd, id: (u64, u64)) -> Option<OwnedFd> {
    let above = openat(folder, "..", FOLDER, Mode::empty()).ok()?;
    (identity(&fstat(&above).ok()?) == id).then_some(above)
}

/// Gives up the levels to which no way leads back.
fn held(levels: &mut Vec<Level>) -> Option<OwnedFd> {
    while let Some(level) = levels.last_mut() {
        if let Some(folder) = level.folder.take() {
            return Some(folder);
        }
        levels.pop();
    }
    None
}

/// Counts what lies in a folder, and notes the folders in it.
fn read(folder: &OwnedFd, sum: &mut u64) -> Option<Level> {
    let id = identity(&fstat(folder).ok()?);
    let mut pending = Vec::new();
    for entry in Dir::from_fd(folder.try_clone().ok()?).ok()? {
        let Ok(entry) = entry else { break };
        let name: &CStr = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(data) = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
        let is_folder = SFlag::from_bits_truncate(data.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
        // Each name of a file counts for its part: all of them lie in this tree.
        let names = if is_folder { 1 } else { data.st_nlink.max(1) };
        let bytes = u64::try_from(data.st_blocks).unwrap_or(0).saturating_mul(512) / names;
        *sum = sum.saturating_add(bytes).saturating_add(ENTRY);
        if is_folder && pending.len() <= PENDING {
            pending.push(name.to_owned());
        }
    }
    Some(Level { folder: None, id, pending })
}

fn identity(data: &FileStat) -> (u64, u64) {
    (data.st_dev, data.st_ino)
}

/// Bytes of one file, however long its holes are.
pub(crate) fn of_file(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |data| data.blocks().saturating_mul(512))
}

/// Files without a name that the processes of a container hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unlinked {
    pub(crate) bytes: u64,
    /// There may be more, where nobody can look: on their way through a socket, held by a ring of `io_uring`, or behind more
    /// descriptors than are looked at.
    pub(crate) hides: bool,
}

/// Looks at what is held open or mapped. `first`: the first process of the container; `below`: a folder on the file system
/// whose files count besides the container's own.
pub(crate) fn of_unlinked(first: i64, below: Option<&Path>) -> Unlinked {
    let process = |number: &str| PathBuf::from(format!("/proc/{number}"));
    let first = process(&first.to_string());
    let Ok(namespace) = fs::read_link(first.join("ns/pid")) else { return Unlinked::default() };
    let root = fs::metadata(first.join("root/.")).map(|data| data.dev()).ok();
    let beside = below.and_then(|folder| fs::symlink_metadata(folder).ok()).map(|data| data.dev());
    let mut look = UnlinkedFiles { devices: root.into_iter().chain(beside).collect(), ..UnlinkedFiles::default() };
    for number in numbers(Path::new("/proc")) {
        let process = process(&number);
        if fs::read_link(process.join("ns/pid")).is_ok_and(|theirs| theirs == namespace) {
            look.through_process(&process);
        }
    }
    look.found
}

/// Bytes of files without a name that one process has open, on the file system of a folder. What it has mapped is left out:
/// its own program may have been replaced.
pub(crate) fn of_unlinked_by(process: Pid, folder: &Path) -> u64 {
    let device = fs::symlink_metadata(folder).map(|data| data.dev()).ok();
    let mut look = UnlinkedFiles { devices: device.into_iter().collect(), ..UnlinkedFiles::default() };
    let tasks = Path::new("/proc").join(process.to_string()).join("task");
    numbers(&tasks).for_each(|thread| look.through_descriptors(&tasks.join(thread)));
    look.found.bytes
}

/// Names in a folder that are numbers.
fn numbers(folder: &Path) -> impl Iterator<Item = String> {
    let names =
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

#[derive(Default)]
struct UnlinkedFiles {
    devices: HashSet<u64>,
    seen: HashSet<(u64, u64)>,
    looked: usize,
    found: Unlinked,
}

impl UnlinkedFiles {
    /// Each thread may have descriptors of its own. The first of them may have ended, and has nothing then.
    fn through_process(&mut self, process: &Path) {
        let mut is_mapped = false;
        for thread in numbers(&process.join("task")) {
            self.through_descriptors(&process.join("task").join(&thread));
            // All threads have the same memory; it stands below the number of each.
            is_mapped =
                is_mapped || self.through(&Path::new("/proc").join(&thread).join("map_files"), |_, _, _| ()) > 0;
        }
    }

    fn through_descriptors(&mut self, thread: &Path) {
        let information = thread.join("fdinfo");
        self.through(&thread.join("fd"), |look, link, data| {
            look.found.hides |= if data.file_type().is_socket() {
                link.file_name().is_some_and(|number| has_files_on_their_way(&information.join(number)))
            } else {
                // What is no file at all has no type.
                let is_anonymous = data.mode() & SFlag::S_IFMT.bits() == 0;
                is_anonymous && fs::read_link(link).is_ok_and(|target| target.to_string_lossy().contains("io_uring"))
            };
        });
    }

    /// Gives how many entries there are.
    fn through(&mut self, folder: &Path, also: impl Fn(&mut Self, &Path, &fs::Metadata)) -> usize {
        let mut count = 0;
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            if self.looked == DESCRIPTORS {
                self.found.hides = true;
                return count;
            }
            self.looked += 1;
            count += 1;
            let link = entry.path();
            if let Ok(data) = fs::metadata(&link) {
                self.add(&data);
                also(self, &link, &data);
            }
        }
        count
    }

    /// `data`: by a link of /proc, which leads to the file itself, whatever its name was.
    fn add(&mut self, data: &fs::Metadata) {
        let is_ours = data.is_file() && data.nlink() == 0 && self.devices.contains(&data.dev());
        if is_ours && self.seen.insert((data.dev(), data.ino())) {
            self.found.bytes = self.found.bytes.saturating_add(data.blocks().saturating_mul(512));
        }
    }
}

/// Whether descriptors wait in a socket for whoever takes them. Since Linux 5.10.
fn has_files_on_their_way(information: &Path) -> bool {
    let text = fs::read_to_string(information).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix("scm_fds:")).any(|count| count.trim() != "0")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io::{IoSlice, Write as _},
        mem::MaybeUninit,
        os::{
            fd::{AsFd as _, AsRawFd as _},
            unix::fs::symlink,
        },
    };

    use nix::sys::stat::mkdirat;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn file(path: &Path, bytes: u64) {
        fs::File::create(path).unwrap().write_all(&vec![1; usize::try_from(bytes).unwrap()]).unwrap();
    }

    #[test]
    fn attack_36_a_path_that_is_too_long_to_be_named_is_counted() {
        let root = tempfile::tempdir().unwrap();
        let mut here = open(root.path(), FOLDER, Mode::empty()).unwrap();
        let name = "d".repeat(200);
        for _ in 0..150 {
            mkdirat(&here, name.as_str(), Mode::S_IRWXU).unwrap();
            here = openat(&here, name.as_str(), FOLDER, Mode::empty()).unwrap();
        }
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
        let mut big = fs::File::from(openat(&here, "big", flags, Mode::S_IRWXU).unwrap());
        big.write_all(&vec![1; usize::try_from(2 * MIB).unwrap()]).unwrap();
        // What stands beside the way down is counted on the way back.
        file(&root.path().join("beside"), MIB);
        fs::create_dir(root.path().join("z")).unwrap();
        file(&root.path().join("z/also"), MIB);
        let counted = of_tree(root.path());
        assert!((4 * MIB..5 * MIB).contains(&counted), "{counted}");
    }

    #[test]
    fn links_are_not_followed_and_names_of_one_file_share_its_bytes() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        file(&outside.path().join("big"), 4 * MIB);
        symlink(outside.path(), root.path().join("link")).unwrap();
        symlink(outside.path().join("big"), root.path().join("other")).unwrap();
        file(&root.path().join("one"), MIB);
        for number in 0..9 {
            fs::hard_link(root.path().join("one"), root.path().join(format!("same-{number}"))).unwrap();
        }
        fs::File::create(root.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let counted = of_tree(root.path());
        assert!((MIB..MIB + 100 * ENTRY).contains(&counted), "{counted}");
        assert_eq!(of_tree(&root.path().join("link")), 0);
        assert_eq!(of_tree(&root.path().join("absent")), 0);
    }

    #[test]
    fn attack_36_an_open_file_without_a_name_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        file(&path, 3 * MIB);
        let held = fs::File::open(&path).unwrap();
        let again = held.try_clone().unwrap();
        let device = fs::metadata(&path).unwrap().dev();
        let counted = || {
            let mut look = UnlinkedFiles { devices: HashSet::from([device]), ..UnlinkedFiles::default() };
            for held in [&held, &again] {
                let link = Path::new("/proc/self/fd").join(held.as_raw_fd().to_string());
                look.add(&fs::metadata(link).unwrap());
            }
            look.found.bytes
        };
        assert_eq!(counted(), 0);
        fs::remove_file(&path).unwrap();
        let bytes = counted();
        assert!((3 * MIB..4 * MIB).contains(&bytes), "{bytes}");
    }

    #[test]
    fn attack_36_a_descriptor_that_waits_in_a_socket_is_no_secret() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let waits = || has_files_on_their_way(&Path::new("/proc/self/fdinfo").join(other.as_raw_fd().to_string()));
        assert!(!waits());
        let file = tempfile::tempfile().unwrap();
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        assert!(along.push(SendAncillaryMessage::ScmRights(&files)));
        sendmsg(&one, &[IoSlice::new(b"x")], &mut along, SendFlags::empty()).unwrap();
        assert!(waits());
        let mut look = UnlinkedFiles::default();
        look.through_process(Path::new("/proc/self"));
        assert!(look.found.hides);
    }

    #[test]
    fn a_folder_of_another_file_system_is_no_mount() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(of_mount(folder.path()), None);
        assert!(of_mount(Path::new("/proc")).is_some());
        assert!(free_bytes(folder.path()).is_some_and(|free| free > 0));
    }
}
