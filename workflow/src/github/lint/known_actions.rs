//! Inputs and outputs of actions that many workflows use, and the oldest version made for a Node that is maintained.
//!
//! Facts of the actions' own `action.yml`, over their versions: an input that an older one had is taken as well.

use super::action_file::ActionShape;

/// Name; inputs (`!` must be given, `~` is deprecated); outputs (`*`: any); oldest major version (0: none is too old).
const KNOWN: &[(&str, &str, &str, u32)] = &[
    (
        "actions/checkout",
        "repository ref token ssh-key ssh-known-hosts ssh-strict ssh-user persist-credentials path clean filter \
         sparse-checkout sparse-checkout-cone-mode fetch-depth fetch-tags show-progress lfs submodules \
         set-safe-directory github-server-url",
        "ref commit",
        4,
    ),
    (
        "actions/cache",
        "path! key! restore-keys upload-chunk-size enableCrossOsArchive fail-on-cache-miss lookup-only save-always~",
        "cache-hit cache-primary-key cache-matched-key",
        4,
    ),
    (
        "actions/cache/restore",
        "path! key! restore-keys enableCrossOsArchive fail-on-cache-miss lookup-only",
        "cache-hit cache-primary-key cache-matched-key",
        4,
    ),
    ("actions/cache/save", "path! key! upload-chunk-size enableCrossOsArchive", "", 4),
    (
        "actions/upload-artifact",
        "name path! if-no-files-found retention-days compression-level overwrite include-hidden-files archive",
        "artifact-id artifact-url artifact-digest",
        4,
    ),
    (
        "actions/upload-artifact/merge",
        "name pattern separate-directories retention-days compression-level delete-merged include-hidden-files",
        "artifact-id artifact-url artifact-digest",
        0,
    ),
    (
        "actions/download-artifact",
        "name artifact-ids path pattern merge-multiple github-token repository run-id skip-decompress digest-mismatch",
        "download-path artifacts",
        4,
    ),
    (
        "actions/setup-node",
        "always-auth~ node-version node-version-file architecture check-latest registry-url scope token cache \
         package-manager-cache cache-dependency-path mirror mirror-token version~",
        "cache-hit node-version",
        4,
    ),
    (
        "actions/setup-python",
        "python-version python-version-file cache architecture check-latest token cache-dependency-path \
         update-environment allow-prereleases freethreaded pip-version pip-install ignore-platform-version version~",
        "python-version cache-hit python-path",
        5,
    ),
    (
        "actions/setup-go",
        "go-version go-version-file check-latest token cache cache-dependency-path architecture stable go-download-base-url",
        "go-version cache-hit",
        5,
    ),
    (
        "actions/setup-java",
        "java-version java-version-file distribution java-package architecture jdk-file jdkFile check-latest \
         force-download set-default verify-signature verify-signature-public-key server-id server-username \
         server-username-env-var server-password server-password-env-var settings-path overwrite-settings \
         gpg-private-key gpg-passphrase gpg-passphrase-env-var cache cache-jdk cache-dependency-path cache-path \
         cache-read-only job-status token mvn-toolchain-id mvn-toolchain-vendor show-download-progress problem-matcher",
        "distribution version path cache-hit cache-primary-key",
        4,
    ),
    (
        "actions/setup-dotnet",
        "dotnet-version dotnet-quality global-json-file source-url owner config-file cache cache-dependency-path \
         workloads architecture",
        "cache-hit dotnet-version",
        4,
    ),
    (
        "actions/github-script",
        "script! github-token debug user-agent previews result-encoding retries retry-exempt-status-codes base-url",
        "*",
        7,
    ),
    ("actions/configure-pages", "static_site_generator generator_config_file token enablement", "*", 4),
    ("actions/upload-pages-artifact", "name path retention-days include-hidden-files", "artifact_id", 3),
    ("actions/deploy-pages", "token timeout error_count reporting_interval artifact_name preview", "page_url", 4),
    ("actions/labeler", "repo-token configuration-path sync-labels dot pr-number", "new-labels all-labels", 5),
    ("actions/first-interaction", "repo-token repo_token issue-message issue_message pr-message pr_message", "", 2),
    (
        "actions/dependency-review-action",
        "repo-token fail-on-severity fail-on-scopes base-ref head-ref config-file allow-licenses deny-licenses \
         allow-dependencies-licenses allow-ghsas external-repo-token license-check vulnerability-check \
         comment-summary-in-pr deny-packages deny-groups retry-on-snapshot-warnings \
         retry-on-snapshot-warnings-timeout warn-only show-openssf-scorecard warn-on-openssf-scorecard-level \
         show-patched-versions",
        "*",
        4,
    ),
    ("docker/login-action", "registry username password scope ecr logout registry-auth attempts", "", 3),
    (
        "docker/setup-buildx-action",
        "version driver driver-opts buildkitd-flags buildkitd-config buildkitd-config-inline install use endpoint \
         platforms append cache-binary cleanup keep-state name config~ config-inline~",
        "name driver platforms nodes endpoint status flags",
        3,
    ),
    ("docker/setup-qemu-action", "image platforms cache-image reset", "platforms", 3),
    (
        "docker/build-push-action",
        "add-hosts allow annotations attests build-args build-contexts builder cache-from cache-to call cgroup-parent \
         context file labels load network no-cache no-cache-filters outputs platforms provenance pull push sbom \
         secrets secret-envs secret-files shm-size ssh tags target ulimit github-token",
        "imageid digest metadata",
        5,
    ),
    (
        "docker/metadata-action",
        "context images tags flavor labels annotations sep-tags sep-labels sep-annotations bake-target github-token",
        "*",
        5,
    ),
    (
        "softprops/action-gh-release",
        "body body_path name tag_name draft prerelease preserve_order files working_directory overwrite_files \
         fail_on_unmatched_files repository token target_commitish discussion_category_name generate_release_notes \
         append_body make_latest previous_tag",
        "url id upload_url assets",
        2,
    ),
    (
        "Swatinem/rust-cache",
        "prefix-key shared-key key add-job-id-key add-rust-environment-hash-key env-vars workspaces cache-directories \
         cache-targets cache-on-failure cache-all-crates cache-workspace-crates save-if cache-provider cache-bin \
         lookup-only cmd-format",
        "cache-hit",
        2,
    ),
    ("dtolnay/rust-toolchain", "toolchain targets target components", "cachekey name", 0),
    ("rhysd/action-setup-vim", "version neovim configure-args token", "executable vim-dir", 0),
    (
        "pypa/gh-action-pypi-publish",
        "user password repository-url packages-dir verify-metadata skip-existing verbose print-hash attestations \
         repository_url~ packages_dir~ verify_metadata~ skip_existing~ print_hash~",
        "",
        0,
    ),
    (
        "reviewdog/action-actionlint",
        "github_token tool_name level reporter filter_mode fail_level fail_on_error~ reviewdog_flags actionlint_flags",
        "",
        0,
    ),
    (
        "golangci/golangci-lint-action",
        "version version-file install-mode install-only working-directory github-token verify only-new-issues args \
         skip-cache skip-save-cache cache-invalidation-interval problem-matchers debug experimental skip-pkg-cache \
         skip-build-cache skip-go-installation",
        "",
        4,
    ),
    (
        "pnpm/action-setup",
        "version dest run_install cache cache_dependency_path package_json_file standalone nodejs_bundled",
        "dest bin_dest",
        3,
    ),
];

/// What is known of an action, by what `uses:` says before its `@`.
pub(super) fn shape(name: &str) -> Option<ActionShape> {
    let (written, inputs, outputs, _) = KNOWN.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))?;
    let mut shape = ActionShape::default();
    (*written).clone_into(&mut shape.name);
    for word in inputs.split_whitespace() {
        let input = word.trim_end_matches(['!', '~']);
        shape.add_input(input, word.ends_with('!'), word.ends_with('~').then(String::new));
    }
    shape.outputs = (*outputs != "*").then(|| outputs.split_whitespace().map(str::to_owned).collect());
    Some(shape)
}

/// The oldest major version of an action that a maintained Node runs, where `reference` is an older one.
pub(super) fn newer_than(name: &str, reference: &str) -> Option<u32> {
    let (.., oldest) = KNOWN.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))?;
    let major: u32 = reference.strip_prefix('v')?.split('.').next()?.parse().ok()?;
    (major < *oldest).then_some(*oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_must_be_given_and_what_is_deprecated() {
        let Some(cache) = shape("Actions/Cache") else { return assert!(shape("actions/cache").is_some()) };
        assert_eq!(cache.required().collect::<Vec<_>>(), ["path", "key"]);
        assert_eq!(newer_than("actions/checkout", "v3"), Some(4));
        assert_eq!(newer_than("actions/checkout", "v4.1.7"), None);
        assert_eq!(newer_than("actions/checkout", "main"), None);
    }
}
