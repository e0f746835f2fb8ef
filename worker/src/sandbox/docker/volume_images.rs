//! File systems of a fixed size for the volumes of jobs: sparse images on loop devices, one of them prepared in advance.
//!
//! An image has no name once its device is attached, and the device ends with the last who has it open: the engine,
//! which mounts it for a container, and this process. So nothing is left of either, however both end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use nix::unistd::{Whence, lseek};
use parking_lot::Mutex;

/// Bytes of a volume for each file that it may hold.
const BYTES_PER_FILE: &str = "8192";
/// Without a journal: nobody reads a job's volume after a crash.
const FEATURES: &str = "^has_journal,^resize_inode,uninit_bg,sparse_super2";
/// How the engine mounts one. What is removed in it is given back to the disk; tables that nobody used stay unwritten.
pub(super) const MOUNT_OPTIONS: &str = "noatime,nodev,discard,noinit_itable";
pub(super) const FILE_SYSTEM: &str = "ext4";
/// Bytes of the smallest volume: what ext4 needs besides what it holds.
const SMALLEST: u64 = 16 << 20;

/// Makes volumes of one size.
pub(super) struct VolumeImages {
    folder: PathBuf,
    /// An empty file system. To copy what is written of it is quicker than to make one.
    template: File,
    size: u64,
    direct: bool,
    ready: Mutex<Option<VolumeImage>>,
}

/// An empty file system on a device.
pub(super) struct VolumeImage {
    pub(super) device: String,
    /// Keeps the device attached until it is mounted.
    _open: File,
}

impl VolumeImages {
    /// `owner`: whom root of a container is on this machine. Tries whether this machine lets us. The error says what is missing. Blocks for some 30 ms.
    pub(super) fn open(folder: &Path, size: u64, owner: (u32, u32)) -> Result<Arc<Self>, String> {
        let size = size.max(SMALLEST);
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        clear(folder);
        let template = template(folder, size, owner)?;
        let images = Self { folder: folder.to_owned(), template, size, direct: true, ready: Mutex::default() };
        // Past the page cache where the disk below can: what a job writes is kept once.
        let (first, images) = match images.make() {
            Ok(first) => (first, images),
            Err(_) => {
                let images = Self { direct: false, ..images };
                (images.make().map_err(|error| error.to_string())?, images)
            }
        };
        *images.ready.lock() = Some(first);
        Ok(Arc::new(images))
    }

    /// One that nobody used. The next is prepared meanwhile.
    pub(super) async fn take(self: &Arc<Self>) -> io::Result<VolumeImage> {
        let ready = self.ready.lock().take();
        let image = match ready {
            Some(image) => image,
            None => {
                let images = Arc::clone(self);
                tokio::task::spawn_blocking(move || images.make()).await.map_err(io::Error::other)??
            }
        };
        let images = Arc::clone(self);
        drop(tokio::task::spawn_blocking(move || {
            if images.ready.lock().is_none()
                && let Ok(next) = images.make()
            {
                *images.ready.lock() = Some(next);
            }
        }));
        Ok(image)
    }

    fn make(&self) -> io::Result<VolumeImage> {
        let file = tempfile::Builder::new().prefix("volume-").tempfile_in(&self.folder)?;
        copy_sparse(&self.template, file.as_file(), self.size)?;
        let path = file.path().to_str().ok_or_else(|| io::Error::other("the data folder's name is not UTF-8"))?;
        let direct = if self.direct { "--direct-io=on" } else { "--direct-io=off" };
        let device = run("losetup", &["--find", "--show", direct, path])?.trim().to_owned();
        // For reading: a kernel may refuse to mount what somebody could write.
        let open = File::open(&device);
        // While somebody has it open, this marks it to be detached with the last of them.
        run("losetup", &["--detach", &device])?;
        Ok(VolumeImage { device, _open: open? })
    }
}

/// Detaches what an earlier process could not: it ended in the moment between making a device and marking it.
fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        let Some(name) = path.to_str().filter(|path| path.contains("/volume-")) else { continue };
        let listed = run("losetup", &["--noheadings", "--output", "NAME", "--associated", name]).unwrap_or_default();
        for device in listed.lines() {
            let _ = run("losetup", &["--detach", device.trim()]);
        }
        let _ = fs::remove_file(&path);
    }
}

fn template(folder: &Path, size: u64, (user, group): (u32, u32)) -> Result<File, String> {
    let made = || {
        let file = tempfile::Builder::new().prefix("template-").tempfile_in(folder)?;
        file.as_file().set_len(size)?;
        let path = file.path().to_str().ok_or_else(|| io::Error::other("the data folder's name is not UTF-8"))?;
        let options = format!("packed_meta_blocks=1,lazy_itable_init=1,nodiscard,root_owner={user}:{group}");
        let reserved = ["-m", "0", "-i", BYTES_PER_FILE];
        let form = ["-q", "-F", "-t", FILE_SYSTEM, "-O", FEATURES, "-E", &options];
        run("mke2fs", &[&form[..], &reserved, &[path]].concat())?;
        // A volume is empty, and programs that find something in theirs refuse to begin.
        run("debugfs", &["-w", "-R", "rmdir lost+found", path])?;
        file.reopen()
    };
    made().map_err(|error: io::Error| error.to_string())
}

/// Copies what is written of a file, and leaves its holes.
fn copy_sparse(from: &File, to: &File, size: u64) -> io::Result<()> {
    to.set_len(size)?;
    let end = i64::try_from(size).map_err(io::Error::other)?;
    // Positions belong to the open file, which several may copy from.
    let mut from =
        OpenOptions::new().read(true).open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(from)))?;
    let mut to = to;
    let mut at = 0;
    while at < end {
        let Ok(data) = lseek(from.as_fd(), at, Whence::SeekData) else { break };
        let hole = lseek(from.as_fd(), data, Whence::SeekHole)?;
        from.seek(SeekFrom::Start(data.unsigned_abs()))?;
        to.seek(SeekFrom::Start(data.unsigned_abs()))?;
        io::copy(&mut (&mut from).take(hole.abs_diff(data)), &mut to)?;
        at = hole;
    }
    Ok(())
}

/// Runs a program of this machine; gives what it printed.
fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    // Where users other than root look for programs, those of the system are not.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program).args(arguments).env("PATH", path).env("LC_ALL", "C").output();
    let output = output.map_err(|error| io::Error::other(format!("{program} does not start: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program}: {}", said.trim())))
}
