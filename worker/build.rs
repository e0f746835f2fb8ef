//! Builds `longshore-init` for the container side and hands its path to `include_bytes!`.
//!
//! It needs flags of its own (static, small), so it cannot be an ordinary dependency. A nested cargo builds it from
//! the same lock file into a folder of its own: the outer build holds the lock of the usual one.

use std::{env, error::Error, fs, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    for path in ["build.rs", "init", "../proto/v1/init.proto", "../proto/src/init_protocol.rs", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // <target>/<profile>/build/<package>/out
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not inside a target folder")?.join("init");
    let triple = env::var("TARGET")?;
    let status = Command::new(env::var("CARGO")?)
        .args(["build", "--release", "--locked", "--manifest-path", "init/Cargo.toml"])
        .args(["--target", &triple, "--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()?;
    if !status.success() {
        return Err("longshore-init did not build; its errors stand above (a static build needs libc6-dev)".into());
    }
    fs::copy(target.join(triple).join("release/longshore-init"), out.join("longshore-init"))?;
    Ok(())
}
