//! Numbers of bytes for people. Pure.

/// A number of bytes for people.
pub(super) fn byte_size(bytes: u64) -> String {
    let (mut whole, mut rest, mut unit) = (bytes, 0, "bytes");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if whole < 1024 {
            break;
        }
        (rest, whole, unit) = (whole % 1024 * 10 / 1024, whole / 1024, larger);
    }
    if unit == "bytes" { format!("{whole} {unit}") } else { format!("{whole}.{rest} {unit}") }
}
