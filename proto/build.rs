//! Compiles the `.proto` files without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=v1");
    let files = protox::compile(["v1/worker.proto", "v1/init.proto", "v1/job_process.proto"], ["."])?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::StreamCodec").compile_fds(files)?;
    Ok(())
}
