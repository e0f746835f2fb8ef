//! Reads a Dockerfile into stages of instructions. Pure.
//!
//! Source of the rules: Docker docs, "Dockerfile reference". What only other builders do (mounts, here-documents) and
//! what would fetch around a job's network (`ADD` of an address) is refused by name.

/// A Dockerfile.
#[derive(Debug, Default)]
pub struct Dockerfile {
    /// `ARG`s before the first stage.
    pub args: Vec<(String, Option<String>)>,
    /// In order; the last one is the image.
    pub stages: Vec<BuildStage>,
}

/// One `FROM` and what follows it.
#[derive(Debug)]
pub struct BuildStage {
    /// `AS name`, lower-case.
    pub name: Option<String>,
    /// As written.
    pub base: String,
    /// Each as written, and what it means.
    pub steps: Vec<(String, Instruction)>,
}

/// An instruction. Texts are as written: see [`expand`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `RUN`.
    Run(CommandForm),
    /// `COPY`, and `ADD` of files.
    Copy(CopyInstruction),
    /// `ENV`: values with their quotes.
    Env(Vec<(String, String)>),
    /// `ARG` with its default.
    Arg(String, Option<String>),
    /// `WORKDIR`.
    Directory(String),
    /// `USER`.
    User(String),
    /// `ENTRYPOINT`.
    Entrypoint(CommandForm),
    /// `CMD`.
    Command(CommandForm),
    /// `SHELL`.
    Shell(Vec<String>),
}

/// Something to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandForm {
    /// For the shell.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
}

/// Files to copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyInstruction {
    /// `--from`.
    pub from: Option<String>,
    /// `--chown`.
    pub owner: Option<String>,
    /// `--chmod`.
    pub mode: Option<String>,
    /// Paths or patterns.
    pub sources: Vec<String>,
    /// Where to.
    pub target: String,
}

/// Instructions that say nothing about what an action runs.
const SILENT: [&str; 7] = ["LABEL", "MAINTAINER", "EXPOSE", "VOLUME", "HEALTHCHECK", "STOPSIGNAL", "ONBUILD"];

/// Reads the text. The error says where what is to be changed.
pub fn parse(text: &str) -> Result<Dockerfile, String> {
    let mut file = Dockerfile::default();
    for (line, text) in instructions(text) {
        read(&mut file, &text).map_err(|problem| format!("line {line}: {problem}"))?;
    }
    if file.stages.is_empty() {
        return Err("it has no FROM".into());
    }
    Ok(file)
}

/// Logical lines and where each begins.
fn instructions(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.trim_start().starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let (part, goes_on) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        match found.last_mut().filter(|_| open) {
            Some((_, whole)) => whole.push_str(part),
            None => found.push((index + 1, part.trim_start().to_owned())),
        }
        open = goes_on;
    }
    found
}

fn read(file: &mut Dockerfile, text: &str) -> Result<(), String> {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (name, rest) = (name.to_ascii_uppercase(), rest.trim());
    if name == "FROM" {
        file.stages.push(stage(rest)?);
        return Ok(());
    }
    if SILENT.contains(&name.as_str()) {
        return Ok(());
    }
    let step = step(&name, rest)?;
    match (file.stages.last_mut(), step) {
        (Some(stage), step) => stage.steps.push((text.to_owned(), step)),
        (None, Instruction::Arg(name, value)) => file.args.push((name, value)),
        (None, _) => return Err(format!("{name} stands before the first FROM")),
    }
    Ok(())
}

fn stage(rest: &str) -> Result<BuildStage, String> {
    let (flags, rest) = flags(rest);
    if let Some((name, _)) = flags.first() {
        return Err(format!("FROM {name} is not supported: images have this worker's platform"));
    }
    let words: Vec<_> = rest.split_whitespace().collect();
    let (base, name) = match *words.as_slice() {
        [base] => (base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some(name.to_ascii_lowercase())),
        _ => return Err("write FROM IMAGE or FROM IMAGE AS NAME".into()),
    };
    Ok(BuildStage { name, base: base.to_owned(), steps: Vec::new() })
}

fn step(name: &str, rest: &str) -> Result<Instruction, String> {
    if rest.is_empty() {
        return Err(format!("{name} says nothing"));
    }
    Ok(match name {
        "RUN" => {
            let (flags, rest) = flags(rest);
            for (flag, value) in flags {
                // A cache is only faster.
                if flag != "--mount" || !value.split(',').any(|part| part == "type=cache") {
                    return Err(format!("RUN {flag}={value} is not supported: COPY what it needs"));
                }
            }
            Instruction::Run(here(name, rest).map(words)?)
        }
        "COPY" | "ADD" => Instruction::Copy(copy(name, rest)?),
        "ENV" => Instruction::Env(pairs(rest)?),
        "ARG" => match rest.split_once('=') {
            Some((name, value)) => Instruction::Arg(name.to_owned(), Some(value.to_owned())),
            None => Instruction::Arg(rest.to_owned(), None),
        },
        "WORKDIR" => Instruction::Directory(rest.to_owned()),
        "USER" => Instruction::User(rest.to_owned()),
        "ENTRYPOINT" => Instruction::Entrypoint(words(rest)),
        "CMD" => Instruction::Command(words(rest)),
        "SHELL" => match words(rest) {
            CommandForm::Exec(words) if !words.is_empty() => Instruction::Shell(words),
            _ => return Err("SHELL needs a list: [\"program\", \"argument\"]".into()),
        },
        other => return Err(format!("{other} is no instruction")),
    })
}

fn words(rest: &str) -> CommandForm {
    match serde_json::from_str::<Vec<String>>(rest) {
        Ok(words) => CommandForm::Exec(words),
        Err(_) => CommandForm::Shell(rest.to_owned()),
    }
}

fn here<'t>(name: &str, rest: &'t str) -> Result<&'t str, String> {
    let document = rest.split_once("<<").is_some_and(|(_, word)| {
        word.trim_start_matches(['-', '"', '\'']).starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    });
    if document {
        return Err(format!("{name} <<…: here-documents are not supported; COPY a script instead"));
    }
    Ok(rest)
}

fn copy(name: &str, rest: &str) -> Result<CopyInstruction, String> {
    let (flags, rest) = flags(here(name, rest)?);
    let mut copy = CopyInstruction::default();
    for (flag, value) in flags {
        match flag {
            "--from" if name == "COPY" => copy.from = Some(value.to_owned()),
            "--chown" => copy.owner = Some(value.to_owned()),
            "--chmod" => copy.mode = Some(value.to_owned()),
            // It changes how layers are made, not what is in them.
            "--link" => {}
            _ => return Err(format!("{name} {flag} is not supported")),
        }
    }
    let mut paths = match words(rest) {
        CommandForm::Exec(words) => words,
        CommandForm::Shell(text) => split(&text),
    };
    copy.target = paths.pop().unwrap_or_default();
    if paths.is_empty() {
        return Err(format!("{name} needs a source and a target"));
    }
    for path in paths.iter().filter(|_| name == "ADD") {
        if path.contains("://") || path.starts_with("git@") || path.contains('$') {
            return Err(format!("ADD {path}: nothing is fetched for a build; fetch it in a RUN, or COPY a file"));
        }
        if [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2"].iter().any(|end| path.ends_with(end)) {
            return Err(format!("ADD {path}: archives are not unpacked; COPY it and unpack it in a RUN"));
        }
    }
    copy.sources = paths;
    Ok(copy)
}

/// `--flag=value` words at the start, and the rest.
fn flags(mut rest: &str) -> (Vec<(&str, &str)>, &str) {
    let mut found = Vec::new();
    while rest.starts_with("--") {
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        found.push(word.split_once('=').unwrap_or((word, "")));
        rest = after.trim_start();
    }
    (found, rest)
}

fn pairs(rest: &str) -> Result<Vec<(String, String)>, String> {
    let words = split(rest);
    if !words.first().is_some_and(|word| word.contains('=')) {
        let (name, value) = rest.split_once(char::is_whitespace).ok_or("ENV needs NAME=VALUE")?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    words.iter().map(pair).collect::<Option<_>>().ok_or_else(|| "ENV needs NAME=VALUE".to_owned())
}

/// Words, with their quotes.
fn split(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quote, mut escaped) = (None, false);
    for c in text.chars() {
        if c.is_whitespace() && quote.is_none() && !escaped {
            words.push(String::new());
            continue;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != Some('\'') => escaped = true,
            '"' | '\'' if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            _ => {}
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A text without its quotes, its variables replaced.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => out.extend(chars.next()),
            ('$', None | Some('"')) => {
                let mut name = String::new();
                if chars.peek() == Some(&'{') {
                    chars.next();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(c) => name.push(c),
                            None => return Err(format!("`{text}` has a brace that does not end")),
                        }
                    }
                } else {
                    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        name.push(c);
                    }
                }
                out.push_str(&variable(&name, lookup)?);
            }
            (c, _) => out.push(c),
        }
    }
    Ok(out)
}

fn variable(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let value = lookup(name).filter(|value| !value.is_empty() || rest.is_empty());
    match (rest.split_at_checked(2), value) {
        _ if name.is_empty() => Err("`$` needs a name; write \\$ for the sign itself".into()),
        (_, value) if rest.is_empty() => Ok(value.unwrap_or_default()),
        (Some((":-", other)), value) => value.map_or_else(|| expand(other, lookup), Ok),
        (Some((":+", other)), Some(_)) => expand(other, lookup),
        (Some((":+", _)), None) => Ok(String::new()),
        _ => Err(format!("${{{text}}} is not supported: write ${{{name}}}, ${{{name}:-…}} or ${{{name}:+…}}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn stages_and_their_instructions_are_read() {
        let file = parse(
            "# syntax=x\nARG V=3\nFROM base:${V} AS Build\nRUN one \\\n # between\n  two\n\nrun --mount=type=cache,target=/c [\"a\", \"b c\"]\n\
             FROM scratch\nLABEL a=b\nENV A=1 B=\"two words\"\nENV OLD way of it\nCOPY --from=build --chown=1:2 /x y/ /z/\n\
             ADD f /f\nENTRYPOINT [\"/z/x\"]\nCMD echo\n",
        )
        .unwrap();
        assert_eq!(file.args, [("V".to_owned(), Some("3".to_owned()))]);
        let names: Vec<_> = file.stages.iter().map(|stage| (stage.name.as_deref(), stage.base.as_str())).collect();
        assert_eq!(names, [(Some("build"), "base:${V}"), (None, "scratch")]);
        assert_eq!(file.stages[0].steps[0].1, Instruction::Run(CommandForm::Shell("one   two".into())));
        assert_eq!(file.stages[0].steps[1].1, Instruction::Run(CommandForm::Exec(vec!["a".into(), "b c".into()])));
        let last: Vec<_> = file.stages[1].steps.iter().map(|(_, step)| step.clone()).collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(last[0], Instruction::Env(vec![pair("A", "1"), pair("B", "\"two words\"")]));
        assert_eq!(last[1], Instruction::Env(vec![pair("OLD", "way of it")]));
        let copy = CopyInstruction {
            from: Some("build".into()),
            owner: Some("1:2".into()),
            mode: None,
            sources: vec!["/x".into(), "y/".into()],
            target: "/z/".into(),
        };
        assert_eq!(last[2], Instruction::Copy(copy));
        assert_eq!(last[4], Instruction::Entrypoint(CommandForm::Exec(vec!["/z/x".into()])));
    }

    #[test]
    fn what_is_not_built_is_refused_by_line_and_name() {
        for (text, part) in [
            ("RUN x", "line 1: RUN stands before"),
            ("# only", "no FROM"),
            ("FROM a\nADD http://169.254.169.254/x /x", "line 2: ADD http"),
            ("FROM a\nADD ${URL} /x", "ADD ${URL}"),
            ("FROM a\nADD x.tar.gz /", "unpack it in a RUN"),
            ("FROM a\nRUN --mount=type=bind,source=/,target=/h x", "--mount"),
            ("FROM a\nRUN --security=insecure x", "--security"),
            ("FROM a\nRUN --network=host x", "--network"),
            ("FROM a\nRUN <<EOF", "here-documents"),
            ("FROM --platform=linux/arm64 a", "--platform"),
            ("FROM a\nCOPY x", "target"),
            ("FROM a\nGET x", "no instruction"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn variables_are_replaced_outside_of_single_quotes() {
        let lookup = |name: &str| (name == "A").then(|| "x y".to_owned());
        for (text, expected) in
            [("$A/b", "x y/b"), ("\"${A}\"-'$A'-\\$A", "x y-$A-$A"), ("${B:-d$A}${A:+set}${B:+no}${B}", "dx yset")]
        {
            assert_eq!(expand(text, &lookup).unwrap(), expected, "{text}");
        }
        for text in ["${A", "${A##x}", "$"] {
            assert!(expand(text, &lookup).is_err(), "{text}");
        }
    }
}
