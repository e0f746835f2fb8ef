//! How a script becomes a command.

/// A script file and the command that runs it; `{0}` stands for the file's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shell {
    /// The command.
    pub(crate) argv: Vec<String>,
    /// Of the file.
    pub(crate) extension: &'static str,
    /// Before the script.
    pub(crate) prepend: &'static str,
    /// Behind the script.
    pub(crate) append: &'static str,
}

impl Shell {
    /// The script's file name, given one without an extension.
    pub(crate) fn file(&self, stem: &str) -> String {
        format!("{stem}.{}", self.extension)
    }

    /// The content of the file.
    pub(crate) fn content(&self, script: &str) -> String {
        let script = script.replace("\r\n", "\n");
        format!("{}{script}{}", self.prepend, self.append)
    }

    /// The command, given the path of the file.
    pub(crate) fn command(&self, path: &str) -> Vec<String> {
        self.argv.iter().map(|word| word.replace("{0}", path)).collect()
    }

    /// As it stands in the log.
    pub(crate) fn shown(&self) -> String {
        self.argv.join(" ")
    }
}
