//! Which registries the engine is asked for images, and what of their answers a job is told: the engine asks from within
//! the operator's network, past all that is closed to jobs.

use bollard::errors::Error;
use network::{Forbidden, Reach};

/// Names of the registry that the engine asks where a reference names none.
const DEFAULT: [&str; 2] = ["docker.io", "index.docker.io"];

/// What registries say that a job is told, in our words: the rest of an answer may be of anything that has an address there.
const KNOWN: [(&str, &str); 11] = [
    ("manifest unknown", "it has no such image"),
    ("not found", "it has no such image"),
    ("no matching manifest", "it has none for this machine's architecture"),
    ("unauthorized", "access is denied"),
    ("no basic auth credentials", "access is denied"),
    ("access denied", "access is denied, or it has no such image"),
    ("access to the resource is denied", "access is denied, or it has no such image"),
    ("toomanyrequests", "it was asked too often"),
    ("no space left", "the engine's disk is full"),
    ("invalid reference format", "this is no reference of an image"),
    ("manifest verification failed", "what it sends is not what was asked for"),
];

/// Why a registry is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAsked {
    /// Its address is not public.
    Private,
    /// It has no address that is known now.
    Unresolved,
}

/// Registries that may be asked although they are not public.
pub(super) struct Registries {
    /// `HOST` for all its ports, or `HOST:PORT`.
    private: Vec<String>,
}

impl Registries {
    pub(super) fn new(private: Vec<String>) -> Self {
        Self { private }
    }

    /// Whether the registry that a reference names may be asked. The engine resolves its name again: an operator whose
    /// network must not even be asked closes it to the engine.
    pub(super) async fn check(&self, reference: &str) -> Result<(), NotAsked> {
        let Some(host) = registry(reference) else { return Ok(()) };
        let is_named = |name: &String| {
            name.eq_ignore_ascii_case(host)
                || host.rsplit_once(':').is_some_and(|(host, _)| name.eq_ignore_ascii_case(host))
        };
        if self.private.iter().any(is_named) {
            return Ok(());
        }
        match network::check_web(&format!("https://{host}/"), Reach::default()).await {
            Ok(_) => Ok(()),
            Err(Forbidden::Unresolved(_)) => Err(NotAsked::Unresolved),
            Err(_) => Err(NotAsked::Private),
        }
    }
}

/// The registry in a reference, with its port; `None`: the engine's default. As the engine reads it (`reference` of
/// github.com/distribution): the part before the first slash where it can be no name of a folder.
fn registry(reference: &str) -> Option<&str> {
    let (first, _) = reference.split_once('/')?;
    let is_host = first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase());
    (is_host && !DEFAULT.contains(&first)).then_some(first)
}

/// What a job is told of a failure. All of it stands in the worker's own log.
pub(super) fn cause(reference: &str, error: &Error) -> &'static str {
    tracing::warn!(image = reference, %error, "the engine has no answer from a registry");
    let said = match error {
        Error::DockerResponseServerError { message: said, .. } | Error::DockerStreamError { error: said } => said,
        _ => return "the engine does not answer",
    };
    let known = KNOWN.iter().find(|(words, _)| said.contains(words));
    known.map_or("the worker's log says why", |(_, cause)| cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn attack_60_no_name_of_an_image_leads_into_the_operators_network() {
        let none = Registries::new(Vec::new());
        for reference in [
            "127.0.0.1:5000/x/y:1",
            "localhost:5000/x",
            "localhost/x",
            "10.0.0.5/app",
            "169.254.169.254/latest/meta-data",
            "192.168.1.1:22/x@sha256:0f",
            "0x7f.1/x",
            "2130706433:80/x",
            "LOCALHOST/x",
            "x@127.0.0.1/y",
            "nobody.invalid/x",
        ] {
            assert!(none.check(reference).await.is_err(), "{reference}");
        }
        for reference in ["ubuntu", "ubuntu:24.04", "team/tool:1", "docker.io/library/ubuntu", "1.1.1.1/x", "sha256:0f"]
        {
            assert_eq!(none.check(reference).await, Ok(()), "{reference}");
        }
        let named = Registries::new(vec!["10.0.0.5:5000".into(), "127.0.0.1".into()]);
        for (reference, may) in
            [("10.0.0.5:5000/a", true), ("10.0.0.5:5001/a", false), ("10.0.0.5/a", false), ("127.0.0.1:9/a", true)]
        {
            assert_eq!(named.check(reference).await.is_ok(), may, "{reference}");
        }
    }

    #[test]
    fn attack_60_a_job_is_told_nothing_that_a_server_wrote() {
        for (message, told) in [
            (
                "error parsing HTTP 403 response body: invalid character '<': \"<html>INTERNAL KEY</html>\"",
                "the worker's log says why",
            ),
            ("Get \"https://10.0.0.5/v2/\": dial tcp 10.0.0.5:443: connection refused", "the worker's log says why"),
            ("manifest for x:1 not found: manifest unknown: INTERNAL KEY", "it has no such image"),
        ] {
            let error = Error::DockerResponseServerError { status_code: 500, message: message.to_owned() };
            assert_eq!(cause("x", &error), told);
            assert_eq!(cause("x", &Error::DockerStreamError { error: message.to_owned() }), told);
        }
    }
}
