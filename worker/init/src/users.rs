//! Users of the container, read from its own `/etc/passwd` and `/etc/group`.
//!
//! The C library's look-up would load plug-ins at run time, which a static program cannot.

use std::{fs, io, os::unix::fs::MetadataExt, path::PathBuf};

/// Who a step runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Empty where the user has no entry.
    pub(crate) home: PathBuf,
}

impl User {
    /// Whether it has a home that it can write to.
    pub(crate) fn has_home(&self) -> bool {
        if self.uid == 0 && !self.home.as_os_str().is_empty() {
            return true;
        }
        fs::metadata(&self.home).is_ok_and(|home| {
            let own = home.uid() == self.uid && home.mode() & 0o200 != 0;
            let group = home.gid() == self.gid && home.mode() & 0o020 != 0;
            home.is_dir() && (own || group || home.mode() & 0o002 != 0)
        })
    }
}

/// Finds `name`, `uid`, `name:group` or `uid:gid`. Empty: the user of this process.
pub(crate) fn find(text: &str) -> io::Result<User> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    let own = nix::unistd::getuid().to_string();
    resolve(if text.is_empty() { &own } else { text }, &passwd, &group)
}

fn resolve(text: &str, passwd: &str, group: &str) -> io::Result<User> {
    let missing = |what: &str, name: &str| io::Error::other(format!("the image has no {what} named {name:?}"));
    let (name, group_name) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let entry =
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| match name.parse::<u32>() {
            Ok(uid) => fields.get(2).and_then(|field| field.parse().ok()) == Some(uid),
            Err(_) => fields.first() == Some(&name),
        });
    let number = |index: usize| entry.as_ref().and_then(|fields| fields.get(index)?.parse::<u32>().ok());
    let uid = number(2).or_else(|| name.parse().ok()).ok_or_else(|| missing("user", name))?;
    let gid = match group_name {
        None => number(3).unwrap_or(0),
        Some(name) => name
            .parse()
            .ok()
            .or_else(|| {
                let mut groups = group.lines().map(|line| line.split(':'));
                groups.find_map(|mut fields| (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?)
            })
            .ok_or_else(|| missing("group", name))?,
    };
    let home = entry.as_ref().and_then(|fields| fields.get(5)).map(PathBuf::from).unwrap_or_default();
    Ok(User { uid, gid, home })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nrunner:x:1001:118:,,,:/home/runner:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\ndocker:x:999:runner\n";

    #[test]
    fn a_user_is_a_name_or_number_with_an_optional_group() {
        for (text, uid, gid, home) in [
            ("root", 0, 0, "/root"),
            ("runner", 1001, 118, "/home/runner"),
            ("1001", 1001, 118, "/home/runner"),
            ("runner:docker", 1001, 999, "/home/runner"),
            ("4242", 4242, 0, ""),
            ("4242:7", 4242, 7, ""),
        ] {
            assert_eq!(resolve(text, PASSWD, GROUP).unwrap(), User { uid, gid, home: home.into() }, "{text}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_by_name() {
        assert!(resolve("nobody", PASSWD, GROUP).unwrap_err().to_string().contains("nobody"));
        assert!(resolve("root:wheel", PASSWD, GROUP).unwrap_err().to_string().contains("wheel"));
    }
}
