//! Patterns below one directory: what they match, and the hash of it for `hashFiles()`.
//!
//! Rules as in `@actions/glob` with its defaults: later patterns override earlier ones, `!` excludes, a directory
//! stands for all below it, names starting with a dot match, linked directories are not entered. Files whose content
//! lies outside the directory are left out.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{files, wire::context};

/// SHA-256 over the SHA-256 of each file that matches, in the order of the walk; `None` where none does.
pub(crate) fn hash(base: &Path, patterns: &[String]) -> io::Result<Option<Vec<u8>>> {
    let (mut total, mut found) = (Sha256::new(), false);
    let real = base.canonicalize().map_err(context(base.display()))?;
    find(base, patterns, &mut |path, _| {
        // Links to files are followed, as far as they stay inside.
        let Some(mut file) = files::open_below(&real, path).map_err(context(path.display()))? else { return Ok(()) };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match io::Read::read(&mut file, &mut buffer)? {
                0 => break,
                count => hash.update(buffer.get(..count).unwrap_or_default()),
            }
        }
        total.update(hash.finalize());
        found = true;
        Ok(())
    })?;
    Ok(found.then(|| total.finalize().to_vec()))
}

/// Tells of everything that matches, a folder before what it holds.
pub(crate) fn find(base: &Path, patterns: &[String], visit: &mut Visitor<'_>) -> io::Result<()> {
    let base = base.canonicalize().map_err(context(base.display()))?;
    let lines = patterns.iter().flat_map(|pattern| pattern.lines()).map(str::trim);
    let mut rules = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        rules.extend(Rule::parse(line, &base)?);
    }
    let mut walk = Walk { base: &base, rules: &rules, visit };
    for root in roots(&rules) {
        let mut path = base.clone();
        path.extend(&root);
        walk.visit(&path)?;
    }
    Ok(())
}

/// Hears of a match: its path, and what it is itself.
pub(crate) type Visitor<'t> = dyn FnMut(&Path, &fs::Metadata) -> io::Result<()> + 't;

/// Where walks begin: the literal beginnings of patterns, in their order, without those below another.
fn roots(rules: &[Rule]) -> Vec<Vec<String>> {
    let mut roots: Vec<Vec<String>> = Vec::new();
    let all: Vec<_> = rules.iter().filter(|rule| !rule.exclude).map(Rule::literal).collect();
    for root in &all {
        let covered = all.iter().any(|other| other.len() < root.len() && root.starts_with(other));
        if !covered && !roots.contains(root) {
            roots.push(root.clone());
        }
    }
    roots
}

struct Walk<'a, 't> {
    base: &'a Path,
    rules: &'a [Rule],
    visit: &'a mut Visitor<'t>,
}

impl Walk<'_, '_> {
    fn visit(&mut self, path: &Path) -> io::Result<()> {
        // A file that vanished or that nobody may look at does not match.
        let Ok(data) = fs::symlink_metadata(path) else { return Ok(()) };
        // Literal beginnings may lead through links, too.
        let Ok(real) = path.canonicalize() else { return Ok(()) };
        if !real.starts_with(self.base) {
            return Ok(());
        }
        if self.matches(path) {
            (self.visit)(path, &data)?;
        }
        if data.is_dir() {
            let mut entries: Vec<PathBuf> =
                fs::read_dir(path)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
            entries.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
            return entries.iter().try_for_each(|entry| self.visit(entry));
        }
        Ok(())
    }

    fn matches(&self, path: &Path) -> bool {
        let Ok(relative) = path.strip_prefix(self.base) else { return false };
        let names: Vec<_> = relative.iter().map(|name| name.to_string_lossy().chars().collect::<Vec<_>>()).collect();
        self.rules.iter().fold(false, |matched, rule| match rule.exclude {
            true => matched && !rule.matches(&names),
            false => matched || rule.matches(&names),
        })
    }
}

/// One pattern.
#[derive(Debug)]
struct Rule {
    exclude: bool,
    segments: Vec<Segment>,
}

#[derive(Debug, PartialEq)]
enum Segment {
    /// `**`: any number of names.
    Any,
    Name(Vec<Token>),
}

#[derive(Debug, PartialEq)]
enum Token {
    Star,
    Question,
    Char(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Rule {
    /// `None`: an absolute pattern that lies elsewhere.
    fn parse(text: &str, base: &Path) -> io::Result<Option<Self>> {
        let (exclude, pattern) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest.trim()));
        let relative = if pattern.starts_with('/') {
            match base.to_str().and_then(|base| pattern.strip_prefix(base.trim_end_matches('/'))) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
                _ => return Ok(None),
            }
        } else {
            pattern.strip_prefix("./").unwrap_or(if pattern == "." { "" } else { pattern })
        };
        let mut segments = Vec::new();
        for part in relative.split('/').filter(|part| !part.is_empty()) {
            let segment = match part {
                "." | ".." => {
                    return Err(io::Error::other(format!(
                        "hashFiles: `.` and `..` are not allowed in pattern {text:?}"
                    )));
                }
                "**" => Segment::Any,
                name => Segment::Name(tokens(name)),
            };
            if segment != Segment::Any || segments.last() != Some(&Segment::Any) {
                segments.push(segment);
            }
        }
        Ok(Some(Self { exclude, segments }))
    }

    /// The names up to the first wildcard.
    fn literal(&self) -> Vec<String> {
        let name = |segment: &Segment| match segment {
            Segment::Any => None,
            Segment::Name(tokens) => {
                tokens.iter().map(|token| if let Token::Char(char) = token { Some(*char) } else { None }).collect()
            }
        };
        self.segments.iter().map_while(name).collect()
    }

    /// All positions in the pattern are followed at once, so that many `**` cost no more than few.
    fn matches(&self, names: &[Vec<char>]) -> bool {
        let mut reached = vec![false; self.segments.len() + 1];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        self.skip_any(&mut reached);
        for name in names {
            if reached.last() == Some(&true) {
                return true;
            }
            let mut next = vec![false; reached.len()];
            for (index, segment) in
                self.segments.iter().enumerate().filter(|(index, _)| reached.get(*index) == Some(&true))
            {
                let target = match segment {
                    Segment::Any => index,
                    Segment::Name(tokens) if fits(tokens, name) => index + 1,
                    Segment::Name(_) => continue,
                };
                if let Some(target) = next.get_mut(target) {
                    *target = true;
                }
            }
            self.skip_any(&mut next);
            reached = next;
        }
        reached.last() == Some(&true)
    }

    /// `**` may stand for nothing, except at the end: there it needs a name.
    fn skip_any(&self, reached: &mut [bool]) {
        for (index, segment) in self.segments.iter().enumerate() {
            if *segment == Segment::Any
                && reached.get(index) == Some(&true)
                && let Some(next) = reached.get_mut(index + 1)
            {
                *next = true;
            }
        }
    }
}

fn tokens(name: &str) -> Vec<Token> {
    let mut chars = name.chars();
    let mut tokens = Vec::new();
    while let Some(char) = chars.next() {
        tokens.push(match char {
            '*' => Token::Star,
            '?' => Token::Question,
            '\\' => Token::Char(chars.next().unwrap_or('\\')),
            '[' => match set(chars.as_str()) {
                Some((token, rest)) => {
                    chars = rest.chars();
                    token
                }
                None => Token::Char('['),
            },
            char => Token::Char(char),
        });
    }
    tokens
}

/// A set after its `[`, and what follows its `]`.
fn set(text: &str) -> Option<(Token, &str)> {
    let (negated, body) = match text.strip_prefix(['!', '^']) {
        Some(body) => (true, body),
        None => (false, text),
    };
    // A `]` in first place is a member.
    let end = body.char_indices().skip(1).find(|(_, char)| *char == ']')?.0;
    let (members, rest) = (body.get(..end)?, body.get(end + 1..)?);
    let members: Vec<char> = members.chars().collect();
    let mut ranges = Vec::new();
    let mut left = members.as_slice();
    while let Some((&from, tail)) = left.split_first() {
        left = match tail {
            ['-', to, tail @ ..] => {
                ranges.push((from, *to));
                tail
            }
            tail => {
                ranges.push((from, from));
                tail
            }
        };
    }
    Some((Token::Set { negated, ranges }, rest))
}

/// Whether a name fits: on a mismatch only the last star has to take one more character.
fn fits(tokens: &[Token], name: &[char]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut retry = None;
    loop {
        match (tokens.get(at), name.get(read)) {
            (None, None) => return true,
            (Some(Token::Star), _) => {
                retry = Some((at, read));
                at += 1;
                continue;
            }
            (Some(token), Some(char)) if token.accepts(*char) => {
                at += 1;
                read += 1;
                continue;
            }
            _ => {}
        }
        match retry {
            Some((star, from)) if from < name.len() => {
                retry = Some((star, from + 1));
                at = star + 1;
                read = from + 1;
            }
            _ => return false,
        }
    }
}

impl Token {
    fn accepts(&self, char: char) -> bool {
        match self {
            Self::Star | Self::Question => true,
            Self::Char(own) => *own == char,
            Self::Set { negated, ranges } => ranges.iter().any(|(from, to)| (*from..=*to).contains(&char)) != *negated,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        directory
    }

    fn expected(files: &[&str]) -> Option<Vec<u8>> {
        let mut total = Sha256::new();
        files.iter().for_each(|file| total.update(Sha256::digest(file.as_bytes())));
        (!files.is_empty()).then(|| total.finalize().to_vec())
    }

    #[test]
    fn patterns_match_as_on_github() {
        let files = ["a.lock", "b/a.lock", "b/c/a.lock", "b/c/.hidden", "z[1].txt", "b.lock"];
        let base = tree(&files);
        for (patterns, matched) in [
            (&["a.lock"][..], &["a.lock"][..]),
            (&["**/a.lock"], &["a.lock", "b/a.lock", "b/c/a.lock"]),
            (&["**/a.lock", "!b/c/**"], &["a.lock", "b/a.lock"]),
            (&["**/a.lock", "!b"], &["a.lock"]),
            (&["!b", "**/a.lock"], &["a.lock", "b/a.lock", "b/c/a.lock"]),
            (&["b/c"], &["b/c/.hidden", "b/c/a.lock"]),
            (&["*.lock"], &["a.lock", "b.lock"]),
            (&["?.lock\n!b.lock"], &["a.lock"]),
            (&["[a-b].lock"], &["a.lock", "b.lock"]),
            (&["[!a].lock"], &["b.lock"]),
            (&["z[[]1].txt"], &["z[1].txt"]),
            (&["b.lock", "a.lock"], &["b.lock", "a.lock"]),
            (&["./b/*.lock"], &["b/a.lock"]),
            (&["# a.lock", "absent"], &[]),
            (&["/etc/passwd"], &[]),
        ] {
            let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            assert_eq!(hash(base.path(), &patterns).unwrap(), expected(matched), "{patterns:?}");
        }
        let absolute = format!("{}/b/*", base.path().canonicalize().unwrap().display());
        assert_eq!(hash(base.path(), &[absolute]).unwrap(), expected(&["b/a.lock", "b/c/.hidden", "b/c/a.lock"]));
    }

    #[test]
    fn attack_13_nothing_outside_the_base_is_hashed() {
        let outside = tree(&["secret"]);
        let base = tree(&["inside"]);
        std::os::unix::fs::symlink(outside.path(), base.path().join("directory")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), base.path().join("file")).unwrap();
        for pattern in ["directory/secret", "directory/**", "file"] {
            assert_eq!(hash(base.path(), &[pattern.to_owned()]).unwrap(), None, "{pattern}");
        }
        assert_eq!(hash(base.path(), &["**".to_owned()]).unwrap(), expected(&["inside"]));
        for pattern in ["../**", "inside/../../**"] {
            assert!(hash(base.path(), &[pattern.to_owned()]).is_err(), "{pattern}");
        }
    }

    #[test]
    fn attack_48_odd_names_are_hashed_like_any_other() {
        let long = format!("{}/file", vec!["d".repeat(200); 15].join("/"));
        let files = ["-rf", "A", "a", &long, "new\nline", "u\u{308}", "\u{fc}"];
        let base = tree(&files);
        assert_eq!(hash(base.path(), &["**".to_owned()]).unwrap(), expected(&files));
        assert_eq!(hash(base.path(), &["-rf".to_owned(), "u*".to_owned()]).unwrap(), expected(&["-rf", "u\u{308}"]));
        let odd: &std::ffi::OsStr = OsStrExt::from_bytes(b"\xff\xfe");
        fs::write(base.path().join(odd), "odd").unwrap();
        assert!(hash(base.path(), &["**".to_owned()]).unwrap().is_some());
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_longer() {
        let pattern = "**/a*a*a*a*a*b/".repeat(30);
        let rule = Rule::parse(&pattern, Path::new("/")).unwrap().unwrap();
        assert!(!rule.matches(&vec!["a".repeat(100).chars().collect(); 100]));
    }
    #[test]
    fn attack_44_a_folder_swapped_for_a_link_while_it_is_read_gives_away_nothing_outside() {
        let (base, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| base.path().join(name);
        for (folder, text) in [(at("folder"), "inside"), (outside.path().to_owned(), "outside")] {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("file"), text).unwrap();
        }
        std::os::unix::fs::symlink(outside.path(), at("link")).unwrap();
        let hash_of = |text: &str| Sha256::digest(Sha256::digest(text)).to_vec();
        let done = std::sync::atomic::AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    for (from, to) in [("folder", "away"), ("link", "folder"), ("folder", "link"), ("away", "folder")] {
                        fs::rename(at(from), at(to)).unwrap();
                    }
                }
            });
            let patterns = ["folder/file".to_owned()];
            let seen: Vec<_> = (0..20_000).map(|_| hash(base.path(), &patterns)).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            seen
        });
        assert!(seen.iter().any(|hash| matches!(hash, Ok(Some(hash)) if *hash == hash_of("inside"))));
        for hash in seen {
            assert!(
                matches!(&hash, Ok(hash) if hash.as_ref().is_none_or(|hash| *hash == hash_of("inside"))),
                "{hash:?}"
            );
        }
    }
}
